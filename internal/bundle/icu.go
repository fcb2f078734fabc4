package bundle

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// keepICU tells which items of ICU's data stay. PostgreSQL uses ICU for collations only, and initdb makes
// one, "unicode", from the root collation. Without the list of languages (res_index) ICU offers no language that
// it has no rules for, so initdb makes no collation that would sort otherwise than its name says.
func keepICU(item string) bool {
	switch item {
	case "root.res", "coll/root.res", "coll/ucadata.icu", "coll/pool.res", "pool.res", "supplementalData.res", "icuver.res":
		return true
	}
	// Normalisation and character properties.
	return !strings.Contains(item, "/") && (strings.HasSuffix(item, ".nrm") || strings.HasSuffix(item, ".icu")) && item != "cnvalias.icu" && item != "unames.icu"
}

// cutICU leaves in libicudata, if t has one, only what keepICU says: 31 MB become less than one.
func cutICU(t tree) error {
	for _, name := range slices.Sorted(maps.Keys(t)) {
		if !strings.Contains(name, "/libicudata.so.") || !t[name].mode.IsRegular() {
			continue
		}
		cut, err := cutDataLibrary(t[name].data)
		if err != nil {
			return fmt.Errorf("cut %s: %w", name, err)
		}
		t[name].data = cut
	}
	return nil
}

// cutDataLibrary gives libicudata with less data. The library is one large constant, icudt<version>_dat, with hardly anything
// around it. The constant is the end of its segment; it is replaced by the smaller one, and the segments behind it move
// forward in the file while all addresses stay, so that nothing else needs to change.
func cutDataLibrary(lib []byte) ([]byte, error) {
	f, err := elf.NewFile(bytes.NewReader(lib))
	if err != nil {
		return nil, err
	}
	if f.Class != elf.ELFCLASS64 || f.Data != elf.ELFDATA2LSB {
		return nil, fmt.Errorf("a %s %s file, expected 64 bits, little endian", f.Class, f.Data)
	}
	symbols, err := f.DynamicSymbols()
	if err != nil {
		return nil, err
	}
	var sym *elf.Symbol
	for i, s := range symbols {
		if strings.HasPrefix(s.Name, "icudt") && strings.HasSuffix(s.Name, "_dat") {
			sym = &symbols[i]
		}
	}
	if sym == nil {
		return nil, fmt.Errorf("no symbol icudt*_dat")
	}
	var seg *elf.Prog
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD && sym.Value >= p.Vaddr && sym.Value+sym.Size <= p.Vaddr+p.Filesz {
			seg = p
		}
	}
	if seg == nil {
		return nil, fmt.Errorf("no segment holds %s", sym.Name)
	}
	start := seg.Off + sym.Value - seg.Vaddr
	// What follows in the segment are unwind tables of the few functions, which never throw.
	data, err := cutData(lib[start : start+sym.Size])
	if err != nil {
		return nil, err
	}
	oldEnd, newEnd := seg.Off+seg.Filesz, start+uint64(len(data))

	out := append(slices.Clone(lib[:start]), data...)
	le := binary.LittleEndian
	const headerSize, phentsize = 64, 56
	phoff := le.Uint64(out[32:])
	if le.Uint16(out[54:]) != phentsize || phoff < headerSize || phoff+uint64(len(f.Progs))*phentsize > start {
		return nil, fmt.Errorf("program headers at an unexpected place")
	}
	// The moved segments keep their place within a page, whatever the size of a page is.
	align := uint64(1)
	for _, p := range f.Progs {
		align = max(align, p.Align)
	}
	if oldEnd < newEnd {
		return nil, fmt.Errorf("nothing to cut")
	}
	shift := (oldEnd - newEnd) / align * align
	var end uint64
	for i, p := range f.Progs {
		at := phoff + uint64(i)*phentsize
		switch {
		case p == seg:
			le.PutUint64(out[at+32:], newEnd-seg.Off) // p_filesz
			le.PutUint64(out[at+40:], newEnd-seg.Off) // p_memsz
		case p.Off >= oldEnd:
			le.PutUint64(out[at+8:], p.Off-shift) // p_offset
			end = max(end, p.Off+p.Filesz)
		case p.Off+p.Filesz > newEnd:
			le.PutUint32(out[at:], uint32(elf.PT_NULL)) // the unwind tables' index
		}
	}
	if end > 0 {
		first := oldEnd
		out = append(out, make([]byte, first-shift-uint64(len(out)))...)
		out = append(out, lib[first:end]...)
	}
	// No section headers: they are for linkers and debuggers, and would have to move too.
	le.PutUint64(out[40:], 0)
	le.PutUint16(out[58:], 0)
	le.PutUint16(out[60:], 0)
	le.PutUint16(out[62:], 0)
	return out, nil
}

// cutData gives an ICU data package ("CmnD" format 1: a header, then a table of contents with offsets of names
// and items from the table's start, sorted by name, then the items, each at a multiple of 16) with only the items that
// keepICU says.
func cutData(dat []byte) ([]byte, error) {
	le := binary.LittleEndian
	if len(dat) < 24 || dat[2] != 0xda || dat[3] != 0x27 || dat[8] != 0 || string(dat[12:16]) != "CmnD" || dat[16] != 1 {
		return nil, fmt.Errorf("not a little-endian ICU data package of format 1")
	}
	head := int(le.Uint16(dat))
	toc := dat[head:]
	count := int(le.Uint32(toc))
	type item struct {
		name string
		data []byte
	}
	var kept []item
	for i := range count {
		name, at := le.Uint32(toc[4+8*i:]), le.Uint32(toc[8+8*i:])
		end := uint32(len(toc))
		if i+1 < count {
			end = le.Uint32(toc[8+8*(i+1):])
		}
		if int(name) > len(toc) || at > end || int(end) > len(toc) {
			return nil, fmt.Errorf("item %d lies outside the package", i)
		}
		n, _, ok := bytes.Cut(toc[name:], []byte{0})
		if !ok {
			return nil, fmt.Errorf("item %d has no name", i)
		}
		// Names begin with the name of the package: icudt76l/coll/root.res.
		_, short, _ := strings.Cut(string(n), "/")
		if keepICU(short) {
			kept = append(kept, item{string(n), toc[at:end]})
		}
	}
	if len(kept) == 0 {
		return nil, fmt.Errorf("nothing to keep among %d items", count)
	}
	table := make([]byte, 4+8*len(kept))
	le.PutUint32(table, uint32(len(kept)))
	for i, it := range kept {
		le.PutUint32(table[4+8*i:], uint32(len(table)))
		table = append(append(table, it.name...), 0)
	}
	pad := func() { table = append(table, make([]byte, (16-(head+len(table))%16)%16)...) }
	for i, it := range kept {
		pad()
		le.PutUint32(table[8+8*i:], uint32(len(table)))
		table = append(table, it.data...)
	}
	pad()
	return append(slices.Clone(dat[:head]), table...), nil
}
