package identity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

// maxFileSize bounds what is read of a file, in bytes. The bundles of all public
// authorities take about 250 KB.
const maxFileSize = 16 << 20

// identityFiles are the files that an identity is read from. Its methods are called one
// at a time (see bounded).
type identityFiles struct {
	ca, cert, key string
	watched       watchedFiles
	parsed        [][]byte // the content that identity was made of
	identity      material
}

// load reads and checks the files. It reads all of them at every call: that takes less
// than a millisecond, and notices every way of replacing a file.
func (f *identityFiles) load(_ context.Context, settled time.Duration) (material, error) {
	contents, err := f.watched.read(settled, f.ca, f.cert, f.key)
	if err != nil {
		return material{}, err
	}
	if sameContents(contents, f.parsed) {
		return f.identity, nil
	}
	names := [3]string{
		fmt.Sprintf("caFile %q", f.ca), fmt.Sprintf("certFile %q", f.cert), fmt.Sprintf("keyFile %q", f.key),
	}
	identity, err := parseIdentity(contents[0], contents[1], contents[2], names, time.Now())
	if err != nil {
		return material{}, err
	}
	f.parsed, f.identity = contents, identity
	return identity, nil
}

// errSettling says that files have changed and may still be changing.
var errSettling = errors.New("identity: the files have just changed")

// watchedFiles are files that are read together, and what they held the last time.
type watchedFiles struct {
	taken   [][]byte  // what read last returned
	pending [][]byte  // what differed from it, and may be incomplete
	since   time.Time // when pending was first read

	reading atomic.Pointer[string] // the path of the file that is being read, or was last
}

// late is the error of a read that has not ended. It may be called while read runs.
func (w *watchedFiles) late(after time.Duration, cause error) error {
	path := w.reading.Load()
	if path == nil {
		path = new(string) // the goroutine has not begun to read
	}
	return fmt.Errorf("reading %q has not ended after %v: %w; check the file system that it is on", *path, after, cause)
}

// read returns the content of the files if it is what read last returned, or if it has not
// changed for the time settled, by the files' modification times or by two reads that far
// apart. Otherwise the error is errSettling. A settled of 0 accepts any content.
func (w *watchedFiles) read(settled time.Duration, paths ...string) ([][]byte, error) {
	contents := make([][]byte, len(paths))
	var newest time.Time
	for i, path := range paths {
		w.reading.Store(&path)
		content, modified, err := readFile(path)
		if err != nil {
			return nil, err
		}
		contents[i] = content
		if modified.After(newest) {
			newest = modified
		}
	}
	now := time.Now()
	switch {
	case sameContents(contents, w.taken), settled == 0:
	case now.Sub(newest) >= settled:
	case !sameContents(contents, w.pending):
		w.pending, w.since = contents, now
		return nil, errSettling
	case now.Sub(w.since) < settled:
		return nil, errSettling
	}
	w.taken, w.pending = contents, nil
	return contents, nil
}

func sameContents(a, b [][]byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !bytes.Equal(a[i], b[i]) {
			return false
		}
	}
	return true
}

func readFile(path string) ([]byte, time.Time, error) {
	if path == "" {
		return nil, time.Time{}, errors.New("a file's path is empty")
	}
	stat, err := os.Stat(path)
	var broken *fs.PathError
	switch {
	case strings.Contains(path, "-----BEGIN "): // it may be a key, which must not be in an error
		return nil, time.Time{}, errors.New("the path of a file is PEM text; want a path, or use FromPEM (NewMutualTLSFactory)")
	case errors.As(err, &broken) && path != strings.TrimSpace(path):
		return nil, time.Time{}, fmt.Errorf("%q begins or ends with white space, such as a line break from a file or a command: %w", path, broken.Err)
	case err != nil:
		return nil, time.Time{}, err // has the path
	}
	switch mode := stat.Mode(); {
	case mode&fs.ModeNamedPipe != 0: // opening it could block forever
		return nil, time.Time{}, fmt.Errorf("%q is not a regular file but a pipe, which can be read only once, and files are read again and again; "+
			"write it to a file, or read it and use FromPEM (NewMutualTLSFactory)", path)
	case !mode.IsRegular():
		return nil, time.Time{}, fmt.Errorf("%q is not a regular file", path)
	}
	file, err := os.Open(path) //nolint:gosec // the program names its own files
	if err != nil {
		return nil, time.Time{}, err
	}
	defer func() { _ = file.Close() }() // was only read
	content, err := io.ReadAll(io.LimitReader(file, maxFileSize+1))
	switch {
	case err != nil:
		return nil, time.Time{}, err
	case len(content) > maxFileSize:
		return nil, time.Time{}, fmt.Errorf("%q is larger than %d MiB", path, maxFileSize>>20)
	}
	return content, stat.ModTime(), nil
}
