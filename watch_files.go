package grpcpool

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

// NewMutualTLSFactoryFromFiles is NewMutualTLSFactory for certificates that are
// renewed where they are: caFile holds the roots, certFile the client's
// certificate and any intermediates, keyFile its private key, all PEM. One file
// may hold the certificate and the key. Keepalive is off unless WithKeepalive
// turns it on, and WithPing replaces HealthPing.
//
// The files are read again every 10 s while a channel of the factory is open (see
// WithReloadInterval), and before a handshake. What counts is their content, so
// every way of replacing files is noticed: writing in place, renaming, and the
// symlink that Kubernetes turns over (..data). A certificate without its key, or
// one that is not whole, is kept out until it is: as long as the newest file is
// younger than a second, its content is taken only when it has not changed for a
// second. New content that cannot be used keeps the old identity, is logged at
// Warn, stands in Identity's LastError, and is read again at every check. So it is
// when a file cannot be read at all, also when its file system hangs: that delays a
// handshake by a second, and not again within a reload interval.
//
// A new identity is shown by every handshake from then on, and every connection
// made under the old one makes way: its successor is dialled first, within 15 s
// unless WithReplaceWithin says otherwise, and once that serves it is closed when its
// last stream has ended. So connections are on the new files within 30 s. Where the
// server refuses the new identity, the old connections stay.
//
// The files are read here for the first time: a file that cannot be read within 10 s
// (the error has its path) and what NewMutualTLSFactory refuses are refused here. Pipes
// are refused too, such as a shell's <(command): they can be read only once.
func NewMutualTLSFactoryFromFiles(caFile, certFile, keyFile, serverAddress string, opts ...FactoryOption) (*Factory, error) {
	cfg, err := newFactoryConfig(opts)
	if err != nil {
		return nil, err
	}
	if cfg.tls.source != nil {
		return nil, errors.New("grpcpool: WithCertificateSource is for NewMutualTLSFactory; with files there is a source already")
	}
	files := &identityFiles{ca: caFile, cert: certFile, key: keyFile}
	return newMutualTLS(serverAddress, bounded[material]{call: files.load, late: files.watched.late}, cfg)
}

// identityFiles is where an identity is read from. Its methods are called one at a
// time (see bounded).
type identityFiles struct {
	ca, cert, key string
	watched       watchedFiles
	parsed        [][]byte // the content that identity was made of
	identity      material
}

// load reads and checks the files. It reads them all at every call: that takes
// less than a millisecond, and no way of replacing a file escapes it.
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
var errSettling = errors.New("grpcpool: the files have just changed")

// watchedFiles is a set of files that are read together, and what they held at
// the last time.
type watchedFiles struct {
	taken   [][]byte  // what was last let through
	pending [][]byte  // what differed from it, and may not be whole yet
	since   time.Time // when pending was first read

	reading atomic.Pointer[string] // the path of the file that is being read, or was last
}

// late says that reading has not ended. It may be called while read runs.
func (w *watchedFiles) late(after time.Duration, cause error) error {
	path := w.reading.Load()
	if path == nil {
		path = new(string) // the goroutine has not got so far
	}
	return fmt.Errorf("reading %q has not ended after %v: %w; check the file system that it is on", *path, after, cause)
}

// read returns the content of the files: what was let through before, or else
// what has been there for the time settled, by the files' modification times or
// by two reads that far apart. Otherwise the error is errSettling. With 0 every
// content is let through.
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
	case strings.Contains(path, "-----BEGIN "): // it may be a key, which no error shows
		return nil, time.Time{}, errors.New("the path of a file is PEM text; want a path, or use NewMutualTLSFactory")
	case errors.As(err, &broken) && path != strings.TrimSpace(path):
		return nil, time.Time{}, fmt.Errorf("%q begins or ends with white space, such as a line break from a file or a command: %w", path, broken.Err)
	case err != nil:
		return nil, time.Time{}, err // has the path
	}
	switch mode := stat.Mode(); {
	case mode&fs.ModeNamedPipe != 0: // opening it could block for ever
		return nil, time.Time{}, fmt.Errorf("%q is not a regular file but a pipe, and what it holds can be read only once, while files are read again and again; "+
			"write it to a file, or read it and use NewMutualTLSFactory", path)
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
