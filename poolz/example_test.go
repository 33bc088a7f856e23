package poolz_test

import (
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"google.golang.org/grpc/credentials/insecure"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/poolz"
	"github.com/davidwartell/go-grpcpool/shared"
)

// The page is served beside a program's other debugging pages.
func Example() {
	factory, err := grpcpool.NewFactory("localhost:8080", insecure.NewCredentials())
	if err != nil {
		log.Panic(err)
	}
	orders := shared.New(factory, 5*time.Minute, shared.WithName("orders"), shared.WithLeakDetection(time.Minute))
	defer orders.Close()

	mux := http.NewServeMux()
	mux.Handle("/debug/poolz", poolz.Handler([]poolz.Pool{orders}))
	server := httptest.NewServer(mux) // a program: http.ListenAndServe("localhost:6060", mux)
	defer server.Close()

	answer, err := http.Get(server.URL + "/debug/poolz?format=json")
	if err != nil {
		log.Panic(err)
	}
	defer answer.Body.Close()
	fmt.Println(answer.Status, answer.Header.Get("Content-Type"))

	// A request from another machine is refused, unless WithAccess allows it.
	request := httptest.NewRequest(http.MethodGet, "http://shop.example.com/debug/poolz", nil)
	recorder := httptest.NewRecorder()
	mux.ServeHTTP(recorder, request)
	fmt.Println(recorder.Code, strings.TrimSpace(recorder.Body.String()))
	// Output:
	// 200 OK application/json
	// 403 poolz: this page answers requests from this machine only; the program can allow it with poolz.WithAccess
}
