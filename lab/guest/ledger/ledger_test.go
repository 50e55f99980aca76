// The ledger's promises: numbering goes on, torn tails are cut only when unacknowledged, damage is reported.
package main

import (
	"os"
	"path/filepath"
	"testing"
)

var boot1 = [16]byte{1}

func fill(t *testing.T, count int) (string, string) {
	folder := t.TempDir()
	first, second := filepath.Join(folder, "a"), filepath.Join(folder, "b")
	w, err := openWriter(first, second, boot1)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < count; i++ {
		if _, _, err := w.append(int64(i)); err != nil {
			t.Fatal(err)
		}
	}
	return first, second
}

func size(t *testing.T, path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

func check(t *testing.T, acknowledged, missing, damaged uint64, first, second string) {
	t.Helper()
	r, err := verify(acknowledged, first, second)
	if err != nil {
		t.Fatal(err)
	}
	if r.Missing != missing || r.Damaged != damaged {
		t.Fatalf("missing %d damaged %d, want %d %d", r.Missing, r.Damaged, missing, damaged)
	}
}

func TestContinues(t *testing.T) {
	first, second := fill(t, 5)
	w, err := openWriter(first, second, [16]byte{2})
	if err != nil {
		t.Fatal(err)
	}
	if sequence, _, _ := w.append(9); sequence != 6 {
		t.Fatalf("continued with %d", sequence)
	}
	check(t, 6, 0, 0, first, second)
}

func TestUnacknowledgedTornTailIsCut(t *testing.T) {
	for cutTo := int64(4*recordBytes + 1); cutTo < 5*recordBytes; cutTo++ {
		first, second := fill(t, 5)
		_ = os.Truncate(first, cutTo)
		_ = os.Truncate(second, 4*recordBytes)
		w, err := openWriter(first, second, boot1)
		if err != nil || w.next != 5 || size(t, first) != 4*recordBytes {
			t.Fatalf("cut %d: %v next %d", cutTo, err, w.next)
		}
		check(t, 4, 0, 0, first, second)
	}
}

func TestSecondDiskIsCompleted(t *testing.T) {
	first, second := fill(t, 5)
	_ = os.Truncate(second, 4*recordBytes+7)
	w, err := openWriter(first, second, boot1)
	if err != nil || w.next != 6 {
		t.Fatalf("%v next %d", err, w.next)
	}
	check(t, 5, 0, 0, first, second)
}

func TestAcknowledgedLossIsReported(t *testing.T) {
	first, second := fill(t, 5)
	_ = os.Truncate(second, 3*recordBytes)
	if _, err := openWriter(first, second, boot1); err != nil {
		t.Fatal(err)
	}
	check(t, 5, 2, 0, first, second)
}

func TestAcknowledgedTornRecordStays(t *testing.T) {
	first, second := fill(t, 5)
	_ = os.Truncate(first, 5*recordBytes-3)
	if _, err := openWriter(first, second, boot1); err != nil {
		t.Fatal(err)
	}
	if size(t, first) != 5*recordBytes-3 {
		t.Fatal("an acknowledged record was cut away")
	}
	check(t, 5, 1, 1, first, second)
}

func TestEveryFlippedByteIsDamage(t *testing.T) {
	first, second := fill(t, 5)
	for offset := 0; offset < recordBytes; offset++ {
		content, _ := os.ReadFile(first)
		content[2*recordBytes+offset] ^= 0x40
		_ = os.WriteFile(first, content, 0o600)
		check(t, 5, 1, 1, first, second)
		content[2*recordBytes+offset] ^= 0x40
		_ = os.WriteFile(first, content, 0o600)
	}
	check(t, 5, 0, 0, first, second)
}
