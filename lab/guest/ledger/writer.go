// The writer: each record is flushed on the first disk, then on the second, and only then acknowledged.
package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

type writer struct {
	first, second *os.File
	next          uint64
	lastTimeMs    int64
	bootID        [16]byte
	// What was repaired at start, in words.
	notes []string
}

// tail is what the end of a file says: its last whole record, and how many bytes after it are no record.
type tail struct {
	last      record
	count     int64
	tornBytes int64
}

// openWriter continues after the last whole record of the first disk.
//
// A crash may leave a torn record at the end of one file. It is cut off only where it cannot have been acknowledged:
// on the first disk when the second does not hold that number either, on the second when the first holds nothing newer.
// Whatever else is wrong stays in the file for verify to report.
func openWriter(first, second string, bootID [16]byte) (*writer, error) {
	a, err := openLog(first)
	if err != nil {
		return nil, err
	}
	b, err := openLog(second)
	if err != nil {
		return nil, err
	}
	w := &writer{first: a, second: b, bootID: bootID}
	tailA, err := readTail(a)
	if err != nil {
		return nil, err
	}
	tailB, err := readTail(b)
	if err != nil {
		return nil, err
	}
	if tailA.tornBytes > 0 && tailB.last.sequence <= tailA.last.sequence {
		if err := w.cut(a, tailA, "first"); err != nil {
			return nil, err
		}
	}
	if tailB.tornBytes > 0 && tailA.last.sequence <= tailB.last.sequence+1 {
		if err := w.cut(b, tailB, "second"); err != nil {
			return nil, err
		}
	}
	// Written on the first disk, not yet on the second when the power went: never acknowledged, completed now.
	if tailA.last.sequence == tailB.last.sequence+1 {
		if err := appendFlushed(b, tailA.last.encode()); err != nil {
			return nil, err
		}
		w.notes = append(w.notes, fmt.Sprintf("completed record %d on the second disk; it had not been acknowledged", tailA.last.sequence))
	}
	w.next = tailA.last.sequence + 1
	w.lastTimeMs = tailA.last.timeMs
	return w, nil
}

func (w *writer) append(timeMs int64) (uint64, int64, error) {
	r := record{sequence: w.next, timeMs: timeMs, bootID: w.bootID}
	block := r.encode()
	if err := appendFlushed(w.first, block); err != nil {
		return 0, 0, err
	}
	if err := appendFlushed(w.second, block); err != nil {
		return 0, 0, err
	}
	w.next++
	return r.sequence, timeMs, nil
}

func (w *writer) cut(file *os.File, t tail, which string) error {
	if err := file.Truncate(t.count * recordBytes); err != nil {
		return err
	}
	w.notes = append(w.notes, fmt.Sprintf("cut %d torn bytes after record %d on the %s disk; they had not been acknowledged", t.tornBytes, t.last.sequence, which))
	return file.Sync()
}

func openLog(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	return file, folder.Sync()
}

func appendFlushed(file *os.File, block []byte) error {
	if _, err := file.Write(block); err != nil {
		return err
	}
	return syscall.Fdatasync(int(file.Fd()))
}

// readTail accepts at most one bad record, whole or cut, after the last good one; more than that is damage, not a torn tail.
func readTail(file *os.File) (tail, error) {
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return tail{}, err
	}
	count := size / recordBytes
	for skipped := int64(0); skipped <= 1 && count > 0; skipped++ {
		block := make([]byte, recordBytes)
		if _, err := file.ReadAt(block, (count-1)*recordBytes); err != nil {
			return tail{}, err
		}
		if last, good := decode(block); good {
			return tail{last: last, count: count, tornBytes: size - count*recordBytes}, nil
		}
		count--
	}
	if count == 0 && size <= 2*recordBytes {
		return tail{tornBytes: size}, nil
	}
	return tail{}, fmt.Errorf("%s ends with more than one damaged record; it is left as it is", file.Name())
}
