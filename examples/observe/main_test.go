package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/credentials"

	"github.com/davidwartell/go-grpcpool/examples/internal/trial"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTheMetricsAndThePageShowThePool(t *testing.T) {
	server := trial.Server(t)
	lis, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, server.Addr(), credentials.NewTLS(nil), lis) }()

	url := "http://" + lis.Addr().String()
	for path, words := range map[string][]string{
		"/metrics": {
			`grpcpool_connection_count{`, `grpcpool_name="orders"`, `grpcpool_connection_create_time_seconds_count{`,
			`rpc_client_call_duration_seconds_count{`, `grpcpool_call_count_total{`, `rpc_response_status_code="OK"`,
		},
		"/debug/poolz?format=json": {`"orders"`, `"READY"`, `"calls"`, `"OK": `},
	} {
		if missing, text := waitFor(t, url+path, words); len(missing) > 0 {
			t.Errorf("%s shows no %q:\n%s", path, missing, text)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// waitFor asks the URL until its answer has all of the words, for some seconds.
func waitFor(t *testing.T, url string, words []string) (missing []string, text string) {
	t.Helper()
	defer http.DefaultClient.CloseIdleConnections()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for late := time.After(10 * time.Second); ; {
		text, missing = get(t, url), nil
		for _, word := range words {
			if !strings.Contains(text, word) {
				missing = append(missing, word)
			}
		}
		if len(missing) == 0 {
			return nil, text
		}
		select {
		case <-again.C:
		case <-late:
			return missing, text
		}
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(answer.Body)
	if err := errors.Join(err, answer.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return string(text)
}
