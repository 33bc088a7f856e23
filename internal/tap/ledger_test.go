package tap_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/internal/tap"
)

// wire is both ends of a connection with a tap, frame by frame.
type wire struct {
	t      *testing.T
	peer   sink
	conn   net.Conn
	client *http2.Framer // writes through the tap
	server *http2.Framer // is read through it, by hear
	opened uint32        // streams
}

func newWire(t *testing.T) *wire {
	t.Helper()
	w := &wire{t: t}
	w.conn = tap.New(tap.Events{}).Wrap(&w.peer, nil)
	w.client, w.server = http2.NewFramer(w.conn, nil), http2.NewFramer(&w.peer.in, nil)
	w.client.AllowIllegalWrites, w.server.AllowIllegalWrites = true, true
	if _, err := io.WriteString(w.conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	w.client.WriteSettings()
	w.server.WriteSettings()
	w.mustHear()
	return w
}

// hear reads all that the server has sent.
func (w *wire) hear() error {
	buf := make([]byte, 32<<10)
	for w.peer.in.Len() > 0 {
		if _, err := w.conn.Read(buf); err != nil {
			return err
		}
	}
	return nil
}

func (w *wire) mustHear() {
	w.t.Helper()
	if err := w.hear(); err != nil {
		w.t.Fatal(err)
	}
}

// open opens n streams with as small requests as there are, and returns the first.
func (w *wire) open(n int) (first uint32) {
	first = 2*w.opened + 1
	for range n {
		w.client.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*w.opened + 1, BlockFragment: make([]byte, 5), EndHeaders: true})
		w.opened++
	}
	return first
}

func (w *wire) headers(stream uint32, end bool) {
	w.server.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte{0x88}, EndHeaders: true, EndStream: end})
}

// each calls f for n streams from first.
func each(first uint32, n int, f func(stream uint32)) {
	for i := range uint32(n) {
		f(first + 2*i)
	}
}

const many = 20_000 // streams, or frames

// What the client's requests have paid for stays paid, whenever the server sends it.
func TestWhatRequestsPaidForIsNoFlood(t *testing.T) {
	data := make([]byte, 6)
	for name, exchange := range map[string]func(w *wire){
		"a status for each stream": func(w *wire) {
			first := w.open(many)
			time.Sleep(time.Hour)
			each(first, many, func(id uint32) { w.headers(id, true) })
		},
		"a status for each stream, after windows in which little was said": func(w *wire) {
			first := w.open(many)
			for range 10 {
				time.Sleep(2 * time.Second)
				w.server.WritePing(false, [8]byte{})
				w.mustHear()
			}
			each(first, many, func(id uint32) { w.headers(id, true) })
		},
		"a status for each stream, over a while": func(w *wire) {
			first := w.open(many)
			for i := range uint32(many / 2000) {
				time.Sleep(400 * time.Millisecond)
				each(first+4000*i, 2000, func(id uint32) { w.headers(id, true) })
				w.mustHear()
			}
		},
		"informational headers, headers, status and RST_STREAM for each": func(w *wire) {
			first := w.open(many)
			time.Sleep(time.Minute)
			each(first, many, func(id uint32) {
				w.headers(id, false)
				w.headers(id, false)
				w.headers(id, true)
				w.server.WriteRSTStream(id, http2.ErrCodeNo)
			})
		},
		"RST_STREAM for each": func(w *wire) {
			first := w.open(many)
			time.Sleep(time.Minute)
			each(first, many, func(id uint32) { w.server.WriteRSTStream(id, http2.ErrCodeRefusedStream) })
		},
		"RST_STREAM for each, a while after the status": func(w *wire) {
			first := w.open(many)
			time.Sleep(time.Minute)
			each(first, many, func(id uint32) { w.headers(id, true) })
			w.mustHear()
			time.Sleep(900 * time.Millisecond)
			each(first, many, func(id uint32) { w.server.WriteRSTStream(id, http2.ErrCodeNo) })
		},
		"status and RST_STREAM for streams that the client has reset": func(w *wire) {
			first := w.open(many)
			each(first, many, func(id uint32) { w.client.WriteRSTStream(id, http2.ErrCodeCancel) })
			for range 5 {
				time.Sleep(10 * time.Second)
				w.server.WritePing(false, [8]byte{})
				w.mustHear()
			}
			each(first, many, func(id uint32) {
				w.headers(id, true)
				w.server.WriteRSTStream(id, http2.ErrCodeNo)
			})
		},
		"windows for DATA that the server took long to read": func(w *wire) {
			first := w.open(1)
			for range many {
				w.client.WriteData(first, false, data)
			}
			for range 5 {
				time.Sleep(10 * time.Second)
				w.server.WritePing(false, [8]byte{})
				w.mustHear()
			}
			for range many {
				w.server.WriteWindowUpdate(0, uint32(len(data)))
				w.server.WriteWindowUpdate(first, uint32(len(data)))
			}
		},
		"the connection's windows for DATA of calls that have ended": func(w *wire) {
			first := w.open(many)
			each(first, many, func(id uint32) {
				w.client.WriteData(id, true, data)
				w.client.WriteRSTStream(id, http2.ErrCodeCancel)
			})
			each(w.open(1), 1, func(id uint32) { w.headers(id, true) }) // the server has read that
			for range 5 {
				w.mustHear()
				time.Sleep(10 * time.Second)
				w.server.WritePing(false, [8]byte{})
			}
			for range many {
				w.server.WriteWindowUpdate(0, uint32(len(data)))
			}
		},
		"a few frames of extensions for each stream": func(w *wire) {
			first := w.open(many)
			time.Sleep(time.Minute)
			each(first, many, func(id uint32) {
				w.server.WritePriority(id, http2.PriorityParam{})
				w.server.WriteRawFrame(0xf0, 0, id, nil)
				w.server.WriteData(id, false, nil)
				w.headers(id, true)
			})
		},
		"headers of 1 MiB": func(w *wire) {
			first := w.open(200)
			time.Sleep(time.Minute)
			each(first, 200, func(id uint32) {
				w.server.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: make([]byte, 16<<10), EndStream: true})
				for i := range 63 {
					w.server.WriteContinuation(id, i == 62, make([]byte, 16<<10))
				}
				w.mustHear()
			})
		},
		"answers to PINGs that the server took long to read": func(w *wire) {
			for range 12_000 {
				w.client.WritePing(false, [8]byte{})
			}
			time.Sleep(10 * time.Second)
			for range 12_000 {
				w.server.WritePing(true, [8]byte{})
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWire(t)
				exchange(w)
				w.mustHear()
			})
		})
	}
}

// What they paid for is paid once, and lapses with what it was paid for.
func TestRequestsDoNotPayForAFlood(t *testing.T) {
	for name, before := range map[string]func(w *wire){
		"calls that were answered": func(w *wire) {
			for range 5 {
				each(w.open(many), many, func(id uint32) { w.headers(id, true) })
				w.mustHear()
			}
		},
		"calls that were reset": func(w *wire) {
			each(w.open(5*many), 5*many, func(id uint32) { w.client.WriteRSTStream(id, http2.ErrCodeCancel) })
			for range 3 { // the server has read that
				each(w.open(1), 1, func(id uint32) { w.headers(id, true) })
				w.mustHear()
				time.Sleep(2 * time.Second)
			}
		},
		"DATA whose window is returned": func(w *wire) {
			first := w.open(1)
			for range many {
				w.client.WriteData(first, false, make([]byte, 1000))
			}
			w.server.WriteWindowUpdate(0, 1000*many)
			w.server.WriteWindowUpdate(first, 1000*many)
			w.mustHear()
		},
		"streams that stay open, and have had their share": func(w *wire) {
			w.open(100)
			for range 5 {
				time.Sleep(2 * time.Second)
				for range 1500 {
					w.server.WriteRSTStream(1<<31-1, 0)
				}
				w.mustHear()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWire(t)
				before(w)
				for range 2 {
					time.Sleep(2 * time.Second)
					w.server.WritePing(true, [8]byte{}) // unsolicited
					w.mustHear()
				}
				for range 15_000 {
					w.server.WriteRSTStream(1<<31-1, 0)
				}
				if err := w.hear(); !errors.Is(err, tap.ErrFlood) {
					t.Errorf("15,000 frames for nothing: %v", err)
				}
			})
		})
	}
}

// The server goes on and on, at once or a few thousand frames a second.
func TestOpenStreamsAreNoLeaveToFlood(t *testing.T) {
	for name, flood := range map[string]func(w *wire, first uint32){
		"HEADERS":       func(w *wire, first uint32) { w.headers(first, false) },
		"RST_STREAM":    func(w *wire, first uint32) { w.server.WriteRSTStream(first, 0) },
		"WINDOW_UPDATE": func(w *wire, first uint32) { w.server.WriteWindowUpdate(first, 1) },
		"empty DATA":    func(w *wire, first uint32) { w.server.WriteData(first, false, nil) },
		"CONTINUATION":  func(w *wire, first uint32) { w.server.WriteContinuation(first, false, make([]byte, 1000)) },
	} {
		for _, pause := range []time.Duration{0, 400 * time.Millisecond} {
			t.Run(name+" every "+pause.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWire(t)
					first := w.open(1000)
					time.Sleep(5 * time.Second)
					var err error
					for range 40 {
						for range 1000 {
							flood(w, first)
						}
						if err = w.hear(); err != nil {
							break
						}
						time.Sleep(pause)
					}
					if !errors.Is(err, tap.ErrFlood) {
						t.Errorf("40,000 frames on 1,000 streams: %v", err)
					}
				})
			})
		}
	}
}

// With gRPC's own transports, beside a channel without a tap.
func TestCallsThatTheServerEndsAllAtOnceGetItsStatus(t *testing.T) {
	const calls = 12_000
	for name, creds := range map[string]credentials.TransportCredentials{
		"plain": insecure.NewCredentials(),
		"tap":   tap.Credentials(insecure.NewCredentials(), tap.New(tap.Events{})),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				enough := make(chan struct{})
				server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory(), grpcpooltest.WithEmptyCall(func(context.Context) error {
					<-enough
					return status.Error(codes.ResourceExhausted, "come back later")
				}))
				cc, err := grpc.NewClient(server.Target(), grpc.WithTransportCredentials(creds), grpc.WithContextDialer(server.Dial))
				if err != nil {
					t.Fatal(err)
				}
				defer cc.Close()
				client := testpb.NewTestServiceClient(cc)
				ctx := t.Context()
				var others atomic.Int64
				var ended sync.WaitGroup
				for range calls {
					ended.Go(func() {
						if _, err := client.EmptyCall(ctx, &testpb.Empty{}); status.Code(err) != codes.ResourceExhausted {
							others.Add(1)
						}
					})
				}
				for range 3 {
					time.Sleep(2 * time.Second)
					if _, err := healthpb.NewHealthClient(cc).Check(ctx, &healthpb.HealthCheckRequest{}); err != nil {
						t.Error(err)
					}
				}
				close(enough)
				ended.Wait()
				if n := others.Load(); n != 0 || server.Accepted() != 1 {
					t.Errorf("%d of %d calls ended otherwise than the server said, on %d connections", n, calls, server.Accepted())
				}
			})
		})
	}
}
