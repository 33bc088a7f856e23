package compressors_test

import (
	"bytes"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc/encoding"

	"github.com/davidwartell/go-grpcpool/bench/compressors"
	"github.com/davidwartell/go-grpcpool/snappy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestEveryCompressorCarriesEveryKindOfMessage(t *testing.T) {
	for _, load := range compressors.Payloads() {
		messages := load.First(2) // gzip takes its time
		for _, c := range compressors.All() {
			for i, message := range messages {
				if wire, err := compressors.CheckedRoundTrip(c.Codec, message); err != nil || wire == 0 {
					t.Errorf("%s, message %d of %s: %d bytes on the wire, %v", c.Name, i, load.Name, wire, err)
				}
			}
		}
	}
}

func TestAMessageThatChangesOnItsWayIsAnError(t *testing.T) {
	if _, err := compressors.CheckedRoundTrip(loses{}, []byte("message")); err == nil {
		t.Error("a message that lost a byte was let through")
	}
}

// loses is a compressor that loses the first byte.
type loses struct{ encoding.Compressor }

func (loses) Compress(w io.Writer) (io.WriteCloser, error) { return nopCloser{w}, nil }

func (loses) Decompress(r io.Reader) (io.Reader, error) {
	_, err := r.Read(make([]byte, 1))
	return r, err
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

func TestAllButGzipReadOneAnother(t *testing.T) {
	message := bytes.Repeat([]byte("message "), 20_000) // more than a block
	for _, from := range compressors.All() {
		var sent bytes.Buffer
		w, err := from.Codec.Compress(&sent)
		if err != nil {
			t.Fatal(err)
		}
		w.Write(message)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		for _, to := range compressors.All() {
			if (from.Name == compressors.Gzip) != (to.Name == compressors.Gzip) {
				continue
			}
			r, err := to.Codec.Decompress(bytes.NewReader(sent.Bytes()))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, message) {
				t.Errorf("%s from %s: %d bytes, %v", to.Name, from.Name, len(got), err)
			}
		}
	}
}

func TestTheNameSnappyIsThisLibrarys(t *testing.T) {
	if !snappy.Registered() {
		t.Errorf("gRPC's snappy is %T", encoding.GetCompressor(snappy.Name))
	}
}

func TestEachCompressorIsOfThePackageThatItsNameSays(t *testing.T) {
	for name, module := range map[string]string{
		compressors.Ours:    "github.com/davidwartell/go-grpcpool/snappy",
		compressors.Mostynb: "github.com/mostynb/go-grpc-compression/",
		compressors.Gzip:    "google.golang.org/grpc/encoding/gzip",
	} {
		found := compressors.Named(name)
		if len(found) != 1 {
			t.Fatalf("%s: found %v", name, found)
		}
		of := reflect.TypeOf(found[0].Codec)
		if of.Kind() == reflect.Pointer {
			of = of.Elem()
		}
		if !strings.HasPrefix(of.PkgPath(), module) {
			t.Errorf("%s is of %s", name, of.PkgPath())
		}
	}
}

func TestMessagesAreTheSameAtEveryCall(t *testing.T) {
	for _, load := range compressors.Payloads() {
		all, first := load.Messages(), load.First(2)
		if len(first) != 2 || !slices.EqualFunc(all[:2], first, bytes.Equal) {
			t.Errorf("%s: the messages differ", load.Name)
		}
	}
}

func TestCompressorsAreFoundByName(t *testing.T) {
	found := compressors.Named(compressors.Gzip, "nobody", compressors.Ours)
	if len(found) != 2 || found[0].Name != compressors.Ours || found[1].Name != compressors.Gzip {
		t.Errorf("found %v", found)
	}
}
