// Command peer is a gRPC program whose compressor "snappy" is that of
// mostynb/go-grpc-compression.
//
//	peer serve        serves the echo service, prints its address, ends with its input
//	peer call ADDR    calls the echo service there
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	_ "github.com/mostynb/go-grpc-compression/snappy"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/davidwartell/go-grpcpool/snappy/compat"
)

func main() {
	err := errors.New("usage: peer serve | peer call ADDR")
	switch args := os.Args[1:]; {
	case len(args) == 1 && args[0] == "serve":
		err = serve()
	case len(args) == 2 && args[0] == "call":
		err = call(args[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve() error {
	lis, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it cannot block
	if err != nil {
		return err
	}
	s := grpc.NewServer()
	s.RegisterService(&compat.Service, nil)
	fmt.Println(lis.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // ends when the test closes it, or dies
		s.Stop()
	}()
	return s.Serve(lis)
}

func call(addr string) error {
	cc, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer cc.Close() //nolint:errcheck // at the end of the program
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, message := range compat.Messages() {
		reply := new(wrapperspb.BytesValue)
		if err := cc.Invoke(ctx, compat.EchoMethod, wrapperspb.Bytes(message), reply, grpc.UseCompressor("snappy")); err != nil {
			return err
		}
		if !bytes.Equal(reply.GetValue(), message) {
			return fmt.Errorf("the echo of %d bytes differs", len(message))
		}
	}
	return nil
}
