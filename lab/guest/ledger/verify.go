// verify reads both files whole and says which acknowledged records are missing or damaged.
package main

import (
	"bufio"
	"io"
	"os"
)

// gap is a run of numbers that neither disk holds, both ends included.
type gap struct {
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
}

// boot is the run of records that one boot of the machine wrote on the first disk.
type boot struct {
	BootID      string `json:"bootId"`
	First       uint64 `json:"first"`
	Last        uint64 `json:"last"`
	FirstTimeMs int64  `json:"firstTimeMs"`
	LastTimeMs  int64  `json:"lastTimeMs"`
}

type diskReport struct {
	Path    string `json:"path"`
	Last    uint64 `json:"last"`
	Count   uint64 `json:"count"`
	Missing uint64 `json:"missing"`
	Damaged uint64 `json:"damaged"`
	Gaps    []gap  `json:"gaps"`
	boots   []boot
}

type report struct {
	// The newest acknowledged record when the reading began.
	Last uint64 `json:"last"`
	// Records up to last that are good on both disks, at least.
	Count uint64 `json:"count"`
	// Sums over both disks.
	Missing uint64       `json:"missing"`
	Damaged uint64       `json:"damaged"`
	Disks   []diskReport `json:"disks"`
	Gaps    []gap        `json:"gaps"`
	Boots   []boot       `json:"boots"`
}

func verify(acknowledged uint64, paths ...string) (report, error) {
	whole := report{Last: acknowledged, Count: acknowledged, Gaps: []gap{}}
	for _, path := range paths {
		disk, err := verifyDisk(path, acknowledged)
		if err != nil {
			return report{}, err
		}
		whole.Disks = append(whole.Disks, disk)
		whole.Missing += disk.Missing
		whole.Damaged += disk.Damaged
		whole.Gaps = append(whole.Gaps, disk.Gaps...)
		if disk.Count < whole.Count {
			whole.Count = disk.Count
		}
		if whole.Boots == nil {
			whole.Boots = disk.boots
		}
	}
	return whole, nil
}

// verifyDisk looks only at acknowledged records: what is being appended meanwhile is nobody's promise yet.
func verifyDisk(path string, acknowledged uint64) (diskReport, error) {
	file, err := os.Open(path)
	if err != nil {
		return diskReport{}, err
	}
	defer file.Close()
	disk := diskReport{Path: path, Gaps: []gap{}}
	reader := bufio.NewReaderSize(file, 1<<20)
	block := make([]byte, recordBytes)
	for disk.Last < acknowledged {
		if _, err := io.ReadFull(reader, block); err != nil {
			if err == io.EOF {
				break
			}
			if err == io.ErrUnexpectedEOF {
				disk.Damaged++
				break
			}
			return diskReport{}, err
		}
		r, good := decode(block)
		if !good || r.sequence <= disk.Last {
			disk.Damaged++
			continue
		}
		if r.sequence > disk.Last+1 {
			disk.addGap(disk.Last+1, r.sequence-1)
		}
		disk.Last = r.sequence
		disk.Count++
		disk.addBoot(r)
	}
	if disk.Last < acknowledged {
		disk.addGap(disk.Last+1, acknowledged)
	}
	return disk, nil
}

func (d *diskReport) addGap(from, to uint64) {
	d.Gaps = append(d.Gaps, gap{From: from, To: to})
	d.Missing += to - from + 1
}

func (d *diskReport) addBoot(r record) {
	id := formatID(r.bootID)
	if count := len(d.boots); count > 0 && d.boots[count-1].BootID == id {
		d.boots[count-1].Last = r.sequence
		d.boots[count-1].LastTimeMs = r.timeMs
		return
	}
	d.boots = append(d.boots, boot{BootID: id, First: r.sequence, Last: r.sequence, FirstTimeMs: r.timeMs, LastTimeMs: r.timeMs})
}
