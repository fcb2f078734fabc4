package upload

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/bits"
)

// The legacy server stores with a blob how large it is uncompressed, which it learns by decompressing what is
// pushed. To learn a size no byte has to be produced: measure follows the codes of a gzip or zlib stream and adds
// up lengths, at several times the speed of decompression. What it cannot see is a wrong checksum.

var (
	errCorrupt   = errors.New("not a sound gzip or zlib stream")
	errTruncated = errors.New("compressed stream goes on")
)

// measure tells how many bytes a compressed stream decompresses to. next hands out its pieces and nil at the end.
// As with the legacy server only the first gzip member counts, the rest is read and ignored; a stream that ends early
// counts with what it has produced so far, and ok is false for anything that is no such stream.
func measure(next func() []byte) (size int64, ok bool) {
	m := &meter{next: next}
	err := m.run()
	for !m.ended {
		m.more()
	}
	return m.out, !errors.Is(err, errCorrupt)
}

// meter is a DEFLATE decoder (RFC 1951) that counts.
type meter struct {
	next  func() []byte
	in    []byte
	hold  uint64 // bits not yet used, the next one lowest
	n     uint   // how many of them
	ended bool
	out   int64
	crc   uint32 // of the gzip header

	literals, distances table
}

// more takes the next piece of input.
func (m *meter) more() {
	m.in = m.next()
	m.ended = m.in == nil
}

// fill brings as many bits as fit, at least 56 unless the input ends.
func (m *meter) fill() {
	if len(m.in) >= 8 {
		m.hold |= binary.LittleEndian.Uint64(m.in) << m.n
		m.in = m.in[(63-m.n)>>3:]
		m.n |= 56
		return
	}
	for m.n < 56 {
		for len(m.in) == 0 {
			if m.ended {
				return
			}
			m.more()
		}
		m.hold |= uint64(m.in[0]) << m.n
		m.in = m.in[1:]
		m.n += 8
	}
}

func (m *meter) drop(n uint) {
	m.hold >>= n
	m.n -= n
}

// take uses up to 32 bits.
func (m *meter) take(n uint) (uint64, error) {
	if m.n < n {
		if m.fill(); m.n < n {
			return 0, errTruncated
		}
	}
	v := m.hold & (1<<n - 1)
	m.drop(n)
	return v, nil
}

func (m *meter) run() error {
	gzip, err := m.header()
	if err != nil {
		return err
	}
	for last := false; !last; {
		h, err := m.take(3)
		if err != nil {
			return err
		}
		last = h&1 == 1
		switch h >> 1 {
		case 0:
			err = m.stored()
		case 1:
			m.fixedTables()
			err = m.codes()
		case 2:
			if err = m.dynamicTables(); err == nil {
				err = m.codes()
			}
		default:
			err = errCorrupt
		}
		if err != nil {
			return err
		}
	}
	if !gzip {
		return nil
	}
	m.drop(m.n % 8)
	if _, err := m.take(32); err != nil {
		return err
	}
	size, err := m.take(32)
	if err == nil && size != uint64(uint32(m.out)) { //nolint:gosec // the trailer holds the low 32 bits
		err = errCorrupt
	}
	return err
}

// header reads the header of a gzip (RFC 1952) or zlib (RFC 1950) stream.
func (m *meter) header() (gzip bool, err error) {
	magic, err := m.take(16)
	if err != nil {
		return false, err
	}
	if magic != 0x8b1f {
		cmf, flg := magic&0xff, magic>>8
		if (cmf<<8|flg)%31 != 0 || cmf&15 != 8 || cmf>>4 > 7 || flg&0x20 != 0 {
			return false, errCorrupt
		}
		return false, nil
	}
	m.crc = crc32.ChecksumIEEE([]byte{0x1f, 0x8b})
	var fixed [8]byte
	for i := range fixed {
		if fixed[i], err = m.headerByte(); err != nil {
			return true, err
		}
		if i == 1 && (fixed[0] != 8 || fixed[1]&0xe0 != 0) {
			return true, errCorrupt
		}
	}
	flags := fixed[1]
	if flags&4 != 0 { // extra field
		lo, err := m.headerByte()
		if err != nil {
			return true, err
		}
		hi, err := m.headerByte()
		if err != nil {
			return true, err
		}
		for range int(hi)<<8 | int(lo) {
			if _, err := m.headerByte(); err != nil {
				return true, err
			}
		}
	}
	for _, text := range []byte{8, 16} { // name, comment
		for c := byte(1); flags&text != 0 && c != 0; {
			if c, err = m.headerByte(); err != nil {
				return true, err
			}
		}
	}
	if flags&2 != 0 {
		want := uint64(m.crc & 0xffff)
		got, err := m.take(16)
		if err != nil {
			return true, err
		}
		if got != want {
			return true, errCorrupt
		}
	}
	return true, nil
}

func (m *meter) headerByte() (byte, error) {
	v, err := m.take(8)
	b := []byte{byte(v)} //nolint:gosec // eight bits
	if err == nil {
		m.crc = crc32.Update(m.crc, crc32.IEEETable, b)
	}
	return b[0], err
}

// stored passes over a block that is not compressed.
func (m *meter) stored() error {
	m.drop(m.n % 8)
	lens, err := m.take(32)
	if err != nil {
		return err
	}
	if lens&0xffff != ^(lens>>16)&0xffff {
		return errCorrupt
	}
	left := int64(lens & 0xffff) //nolint:gosec // sixteen bits
	for ; left > 0 && m.n > 0; left-- {
		m.drop(8)
		m.out++
	}
	if left > 0 {
		// fill leaves copies of bytes of m.in above the counted bits; they must go with the last counted one.
		m.hold = 0
	}
	for left > 0 {
		if len(m.in) == 0 {
			if m.ended {
				return errTruncated
			}
			m.more()
			continue
		}
		n := min(left, int64(len(m.in)))
		m.in = m.in[n:]
		m.out += n
		left -= n
	}
	return nil
}

// codes follows the codes of a block to its end.
func (m *meter) codes() error {
	for {
		if m.n < 48 {
			m.fill()
		}
		e := m.literals.entries[m.hold&(1<<literalBits-1)]
		if e.op == opTable {
			e = m.literals.entries[uint64(e.base)+m.hold>>literalBits&(1<<e.extra-1)]
		}
		if uint(e.bits) > m.n {
			return errTruncated
		}
		switch e.op {
		case opLiteral:
			m.drop(uint(e.bits))
			m.out++
			continue
		case opLength:
		case opEnd:
			m.drop(uint(e.bits))
			return nil
		default:
			return errCorrupt
		}
		used := uint(e.bits)
		length := int64(e.base) + int64(m.hold>>used&(1<<e.extra-1)) //nolint:gosec // at most five bits
		used += uint(e.extra)
		rest := m.hold >> used
		d := m.distances.entries[rest&(1<<distanceBits-1)]
		if d.op == opTable {
			d = m.distances.entries[uint64(d.base)+rest>>distanceBits&(1<<d.extra-1)]
		}
		used += uint(d.bits)
		if d.op != opLength {
			if used > m.n {
				return errTruncated
			}
			return errCorrupt
		}
		distance := int64(d.base) + int64(rest>>d.bits&(1<<d.extra-1)) //nolint:gosec // at most thirteen bits
		used += uint(d.extra)
		if used > m.n {
			return errTruncated
		}
		if distance > m.out {
			return errCorrupt
		}
		m.drop(used)
		m.out += length
	}
}

const (
	literalBits  = 10
	distanceBits = 8
)

type op uint8

const (
	opInvalid op = iota
	opLiteral
	opLength // or a distance
	opEnd
	opTable
)

// entry is what the next bits mean.
type entry struct {
	base  uint16 // of a length or distance; of opTable: where the second table begins
	bits  uint8  // how long the code is
	op    op
	extra uint8 // bits that follow the code and add to base; of opTable: the second table's index bits
}

// table finds codes: directly when they are short, in second tables otherwise.
type table struct{ entries []entry }

var (
	lengthBase    = [...]uint16{3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258}
	lengthExtra   = [...]uint8{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0}
	distanceBase  = [...]uint16{1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577}
	distanceExtra = [...]uint8{0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13}
)

func literalEntry(symbol int) entry {
	switch {
	case symbol < 256:
		return entry{op: opLiteral}
	case symbol == 256:
		return entry{op: opEnd}
	case symbol-257 < len(lengthBase):
		return entry{op: opLength, base: lengthBase[symbol-257], extra: lengthExtra[symbol-257]}
	}
	return entry{}
}

func distanceEntry(symbol int) entry {
	if symbol < len(distanceBase) {
		return entry{op: opLength, base: distanceBase[symbol], extra: distanceExtra[symbol]}
	}
	return entry{}
}

func codeLengthEntry(symbol int) entry {
	return entry{op: opLength, base: uint16(symbol)} //nolint:gosec // at most 18
}

// build makes the table of a set of code lengths (RFC 1951, 3.2.2). A set that is over-subscribed is corrupt, and
// so is an incomplete one, except, unless it must be complete, a single code of one bit or none at all.
func (t *table) build(lengths []uint8, direct int, complete bool, meaning func(symbol int) entry) error {
	var count [16]int
	longest := 0
	for _, l := range lengths {
		count[l]++
		longest = max(longest, int(l))
	}
	t.entries = append(t.entries[:0], make([]entry, 1<<direct)...)
	for i := range t.entries {
		t.entries[i].bits = 1
	}
	if longest == 0 {
		if complete {
			return errCorrupt
		}
		return nil
	}
	var first [16]int
	left, code := 1, 0
	for l := 1; l <= 15; l++ {
		first[l] = code
		code = (code + count[l]) << 1
		if left = left<<1 - count[l]; left < 0 {
			return errCorrupt
		}
	}
	if left > 0 && (complete || longest != 1) {
		return errCorrupt
	}
	second := max(longest-direct, 0)
	for symbol, length := range lengths {
		if length == 0 {
			continue
		}
		l := int(length)
		reversed := int(bits.Reverse16(uint16(first[l])) >> (16 - l)) //nolint:gosec // a code of l bits
		first[l]++
		e := meaning(symbol)
		e.bits = length
		if l <= direct {
			for i := reversed; i < 1<<direct; i += 1 << l {
				t.entries[i] = e
			}
			continue
		}
		prefix := reversed & (1<<direct - 1)
		if t.entries[prefix].op != opTable {
			t.entries[prefix] = entry{op: opTable, base: uint16(len(t.entries)), extra: uint8(second)} //nolint:gosec // at most 286 tables of 128 entries, see table
			t.entries = append(t.entries, make([]entry, 1<<second)...)
		}
		sub := t.entries[t.entries[prefix].base:]
		for i := reversed >> direct; i < 1<<second; i += 1 << (l - direct) {
			sub[i] = e
		}
	}
	return nil
}

func (m *meter) fixedTables() {
	var lengths [288]uint8
	for i := range lengths {
		switch {
		case i < 144:
			lengths[i] = 8
		case i < 256:
			lengths[i] = 9
		case i < 280:
			lengths[i] = 7
		default:
			lengths[i] = 8
		}
	}
	_ = m.literals.build(lengths[:], literalBits, true, literalEntry) // complete by construction
	var distances [32]uint8
	for i := range distances {
		distances[i] = 5
	}
	_ = m.distances.build(distances[:], distanceBits, true, distanceEntry) // likewise
}

var codeLengthOrder = [...]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

func (m *meter) dynamicTables() error {
	counts, err := m.take(14)
	if err != nil {
		return err
	}
	nLiterals, nDistances, nCodes := int(counts&31)+257, int(counts>>5&31)+1, int(counts>>10)+4 //nolint:gosec // few bits
	if nLiterals > 286 || nDistances > 30 {
		return errCorrupt
	}
	var codeLengths [19]uint8
	for _, at := range codeLengthOrder[:nCodes] {
		v, err := m.take(3)
		if err != nil {
			return err
		}
		codeLengths[at] = uint8(v) //nolint:gosec // three bits
	}
	if err := m.literals.build(codeLengths[:], 7, true, codeLengthEntry); err != nil {
		return err
	}
	var lengths [286 + 30]uint8
	for i := 0; i < nLiterals+nDistances; {
		m.fill()
		e := m.literals.entries[m.hold&127]
		if uint(e.bits) > m.n {
			return errTruncated
		}
		m.drop(uint(e.bits))
		if e.base < 16 {
			lengths[i] = uint8(e.base) //nolint:gosec // below 16
			i++
			continue
		}
		var repeated uint8
		var times uint64
		switch e.base {
		case 16:
			if i == 0 {
				return errCorrupt
			}
			repeated = lengths[i-1]
			times, err = m.take(2)
			times += 3
		case 17:
			times, err = m.take(3)
			times += 3
		default:
			times, err = m.take(7)
			times += 11
		}
		if err != nil {
			return err
		}
		if i+int(times) > nLiterals+nDistances { //nolint:gosec // seven bits
			return errCorrupt
		}
		for range times {
			lengths[i] = repeated
			i++
		}
	}
	if lengths[256] == 0 {
		return errCorrupt
	}
	if err := m.literals.build(lengths[:nLiterals], literalBits, false, literalEntry); err != nil {
		return err
	}
	return m.distances.build(lengths[nLiterals:nLiterals+nDistances], distanceBits, false, distanceEntry)
}
