package ready_test

import (
	"fmt"
	"net"

	"google.golang.org/grpc/mem"

	"github.com/davidwartell/go-grpcpool/internal/ready"
)

func Example() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close()
	go func() {
		if conn, err := l.Accept(); err == nil {
			conn.Write([]byte("hello"))
			conn.Close()
		}
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	r := ready.New(conn)
	if r == nil {
		fmt.Println("not on this system")
		return
	}
	buf, n, err := r.ReadOnReady(1<<10, mem.DefaultBufferPool())
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(string((*buf)[:n]))
	mem.DefaultBufferPool().Put(buf)
}
