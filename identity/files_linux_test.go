package identity_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/davidwartell/go-grpcpool/identity"
	"github.com/davidwartell/go-grpcpool/internal/pki"
)

// stall makes opening a file hang until the function that it returns is called, or for
// 45 s: it takes a lease on the file, and the kernel waits until that ends.
func stall(t *testing.T, path string) (release func()) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(file.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		file.Close()
		t.Skipf("this file system has no leases: %v", err)
	}
	release = sync.OnceFunc(func() { file.Close() })
	t.Cleanup(release)
	return release
}

// readers is how many goroutines are reading a file.
func readers(t *testing.T) int {
	t.Helper()
	var stacks bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&stacks, 2); err != nil {
		t.Fatal(err)
	}
	return bytes.Count(stacks.Bytes(), []byte("identity.readFile("))
}

// reloadBriefly reloads with a short deadline until done reports true: on a busy machine
// the other files may not be read in that time either.
func reloadBriefly(t *testing.T, f *factory, done func(err error) bool) {
	t.Helper()
	for ctx := testContext(t); ; {
		brief, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		err := f.Reload(brief)
		cancel()
		if done(err) {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("the last reload ended with %v", err)
		}
	}
}

// refusedFor reports whether a dial fails for a reason.
func refusedFor(t *testing.T, f *factory, reason string) bool {
	t.Helper()
	conn, err := f.NewConnection(testContext(t))
	if err == nil {
		conn.Close()
	}
	return err != nil && strings.Contains(err.Error(), reason)
}

// A file that cannot be opened, as on NFS whose server is gone, blocks one goroutine,
// however often it is checked. Handshakes go on with the old identity, and the
// revocation lists do not wait for it.
func TestAFileThatStallsHoldsOneGoroutineAndNoHandshake(t *testing.T) {
	l := localhost(t)
	address := startTLS(t, serverTLS(t, l.CA, l.Server))
	files, list := writeFiles(t, l, inPlace), filepath.Join(t.TempDir(), "crl.pem")
	later := time.Now().Add(time.Hour)
	write(t, list, crl(t, l.CA, later))
	f, err := fromFiles(files, address, identity.WithCRLFiles(true, list), identity.WithReloadInterval(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	next := issue(t, l.CA, pki.Request{})
	files.put(t, l.CA.PEM, next)
	release := stall(t, files.cert)
	told := 0
	reloadBriefly(t, f, func(err error) bool {
		if err != nil && strings.Contains(err.Error(), fmt.Sprintf("identity: reading %q has not ended after", files.cert)) {
			wantError(t, err, "deadline exceeded", "check the file system")
			told++
		}
		return told == 5 && readers(t) > 0
	})
	if n := readers(t); n != 1 {
		t.Errorf("%d goroutines read the files, want 1", n)
	}
	wantConnection(t, f) // under the old identity

	write(t, list, crl(t, l.CA, later, l.Server))
	reloadBriefly(t, f, func(error) bool { return refusedFor(t, f, "was revoked at") })
	write(t, list, crl(t, l.CA, later))

	release()
	if err := f.Reload(testContext(t)); err != nil {
		t.Errorf("with the file back: %v", err)
	}
	wantConnection(t, f)
	if id := f.Identity(); id.Generation != 2 || id.Serial != serialOf(t, next) || id.LastError != nil {
		t.Errorf("with the file back the identity is %+v", id)
	}
	if err := f.Close(); err != nil {
		t.Errorf("with the file back: %v", err)
	}
}

func TestARevocationListThatStallsDoesNotHoldTheIdentityUp(t *testing.T) {
	l := localhost(t)
	files, list := writeFiles(t, l, inPlace), filepath.Join(t.TempDir(), "crl.pem")
	write(t, list, crl(t, l.CA, time.Now().Add(time.Hour)))
	f, err := fromFiles(files, "localhost:1", identity.WithCRLFiles(true, list))
	if err != nil {
		t.Fatal(err)
	}
	release := stall(t, list)
	next := issue(t, l.CA, pki.Request{})
	files.put(t, l.CA.PEM, next)
	reloadBriefly(t, f, func(err error) bool {
		return f.Identity().Serial == serialOf(t, next) && err != nil && strings.Contains(err.Error(), fmt.Sprintf("reading %q has not ended after", list))
	})
	release()
	if err := f.Close(); err != nil {
		t.Errorf("with the file back: %v", err)
	}
}

// A pipe is refused at once. A file that is replaced by a pipe causes a warning and no
// more.
func TestAPipeIsRefused(t *testing.T) {
	l := localhost(t)
	files := writeFiles(t, l, inPlace)
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	for _, path := range []string{fifo, fmt.Sprintf("/dev/fd/%d", r.Fd())} {
		_, err = identity.FromFiles(files.ca, files.cert, path)
		wantError(t, err, "identity: ", path, "not a regular file but a pipe", "use FromPEM")
	}

	f, err := fromFiles(files, "localhost:1")
	if err != nil {
		t.Fatal(err)
	}
	remove(t, files.key)
	symlink(t, fifo, files.key)
	wantError(t, f.Reload(testContext(t)), files.key, "not a regular file but a pipe")
	if id := f.Identity(); id.Generation != 1 || id.LastError == nil {
		t.Errorf("the identity is %+v, want the old one and an error", id)
	}
}
