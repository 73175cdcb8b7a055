package bulk

import (
	"bufio"
	"compress/bzip2"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// archives are known by how they begin, as rotators name them as they like:
// RFC 1952 2.3.1, RFC 8878 3.1.1, the .xz file format 2.1.1.1, and of bzip2
// the header with the first block's magic number (pi), or the end's (its
// root) where there is none, since text may well begin with "BZh".
var archives = []struct {
	magic string
	open  func(io.Reader) (io.Reader, error)
}{
	{"\x1f\x8b\x08", openGzip},
	{"\x28\xb5\x2f\xfd", openZstd},
	{"\xfd7zXZ\x00", openXz},
	{"BZh?\x31\x41\x59\x26\x53\x59", openBzip2},
	{"BZh?\x17\x72\x45\x38\x50\x90", openBzip2},
}

// magicLen is how many bytes tell what a file is.
const magicLen = 10

// unpacker returns what reads an archive that begins with head, nil if it is
// none.
func unpacker(head []byte) func(io.Reader) (io.Reader, error) {
	for _, a := range archives {
		begins := len(head) >= len(a.magic)
		for i := 0; begins && i < len(a.magic); i++ {
			begins = head[i] == a.magic[i] || a.magic[i] == '?'
		}
		if begins {
			return a.open
		}
	}
	return nil
}

// unpack returns the text of what text holds, which is itself unless that is an
// archive. Errors of archives wrap those of their packages.
func unpack(text *bufio.Reader) (io.Reader, error) {
	head, err := text.Peek(magicLen)
	if err != nil && err != io.EOF {
		return nil, err
	}
	open := unpacker(head)
	if open == nil {
		return text, nil
	}
	archive, err := open(text)
	if err != nil {
		return nil, damaged(err)
	}
	return unpacked{archive}, nil
}

// unpacked tells an archive's end from one that is missing, which its package
// calls io.ErrUnexpectedEOF as io.ReadFull does a short last block.
type unpacked struct{ io.Reader }

// Read gives text until the archive's end, which is io.EOF only where it is whole.
func (u unpacked) Read(p []byte) (int, error) {
	n, err := u.Reader.Read(p)
	if err != nil && err != io.EOF {
		err = damaged(err)
	}
	return n, err
}

func damaged(err error) error {
	return fmt.Errorf("the archive is cut short or damaged: %w", err)
}

func openGzip(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }

func openZstd(r io.Reader) (io.Reader, error) {
	// One at a time: the workers scan meanwhile. 128 MiB of window is what
	// zstd itself takes without being told.
	return zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(128<<20))
}

func openXz(r io.Reader) (io.Reader, error) { return xz.NewReader(r) }

func openBzip2(r io.Reader) (io.Reader, error) { return bzip2.NewReader(r), nil }
