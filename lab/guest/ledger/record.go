// One record: 64 bytes, big-endian: magic 8, sequence 8, time in ms 8, boot id 16, first 24 bytes of SHA-256 over the first 40.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
)

const recordBytes = 64
const signedBytes = 40

var magic = []byte("WTRLEDG1")

type record struct {
	sequence uint64
	timeMs   int64
	bootID   [16]byte
}

func (r record) encode() []byte {
	block := make([]byte, recordBytes)
	copy(block, magic)
	binary.BigEndian.PutUint64(block[8:], r.sequence)
	binary.BigEndian.PutUint64(block[16:], uint64(r.timeMs))
	copy(block[24:], r.bootID[:])
	sum := sha256.Sum256(block[:signedBytes])
	copy(block[signedBytes:], sum[:recordBytes-signedBytes])
	return block
}

// decode answers false for a block that is cut, changed or something else.
func decode(block []byte) (record, bool) {
	if len(block) != recordBytes || !bytes.Equal(block[:8], magic) {
		return record{}, false
	}
	sum := sha256.Sum256(block[:signedBytes])
	if !bytes.Equal(block[signedBytes:], sum[:recordBytes-signedBytes]) {
		return record{}, false
	}
	r := record{sequence: binary.BigEndian.Uint64(block[8:]), timeMs: int64(binary.BigEndian.Uint64(block[16:]))}
	copy(r.bootID[:], block[24:signedBytes])
	return r, true
}

func parseID(text string) [16]byte {
	var id [16]byte
	raw, _ := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
	copy(id[:], raw)
	return id
}

func formatID(id [16]byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[0:4], id[4:6], id[6:8], id[8:10], id[10:16])
}
