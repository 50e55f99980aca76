// The ledger: appends numbered, checksummed records to two disks with a flush each, and proves over HTTP that none is lost.
package main

import (
	"encoding/json"
	"flag"
	"log"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

// state is what GET / answers: the newest record that both disks have acknowledged.
type state struct {
	Sequence uint64 `json:"sequence"`
	TimeMs   int64  `json:"timeMs"`
}

func main() {
	first := flag.String("first", "/var/lib/ledger/ledger.log", "file on the first disk")
	second := flag.String("second", "/srv/ledger/ledger.log", "file on the second disk")
	address := flag.String("listen", ":8080", "address of the HTTP answers")
	period := flag.Duration("period", 40*time.Millisecond, "time between two records")
	flag.Parse()
	log.SetFlags(0)

	bootID := readBootID()
	writer, err := openWriter(*first, *second, bootID)
	if err != nil {
		log.Fatalf("ledger: %v", err)
	}
	for _, note := range writer.notes {
		log.Printf("ledger: %s", note)
	}
	startedAt := time.Now().UTC()
	var last atomic.Value
	last.Store(state{Sequence: writer.next - 1, TimeMs: writer.lastTimeMs})
	go appendForever(writer, *period, &last)

	http.HandleFunc("/", func(answer http.ResponseWriter, request *http.Request) {
		if request.URL.Path != "/" {
			http.NotFound(answer, request)
			return
		}
		reply(answer, map[string]interface{}{"last": last.Load(), "bootId": formatID(bootID), "startedAt": startedAt, "notes": writer.notes})
	})
	http.HandleFunc("/verify", func(answer http.ResponseWriter, _ *http.Request) {
		report, err := verify(last.Load().(state).Sequence, *first, *second)
		if err != nil {
			http.Error(answer, err.Error(), http.StatusInternalServerError)
			return
		}
		reply(answer, report)
	})
	log.Fatal((&http.Server{Addr: *address, ReadHeaderTimeout: 10 * time.Second}).ListenAndServe())
}

// appendForever stops the whole service when a disk refuses a record: a ledger that goes on would prove nothing.
func appendForever(writer *writer, period time.Duration, last *atomic.Value) {
	for range time.Tick(period) {
		sequence, timeMs, err := writer.append(time.Now().UnixMilli())
		if err != nil {
			log.Fatalf("ledger: %v", err)
		}
		last.Store(state{Sequence: sequence, TimeMs: timeMs})
	}
}

func reply(answer http.ResponseWriter, value interface{}) {
	answer.Header().Set("content-type", "application/json")
	_ = json.NewEncoder(answer).Encode(value) // The peer may be gone; it asks again.
}

func readBootID() [16]byte {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		log.Fatalf("ledger: %v", err)
	}
	return parseID(strings.TrimSpace(string(text)))
}
