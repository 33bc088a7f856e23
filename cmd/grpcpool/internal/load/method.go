// Package load puts load on a server of the user's own, over a plain channel and
// over a pool in turn, and says what came of it.
//
//	method.go  which call, with which message
//	load.go    callers, and how long their calls take
package load

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// Method is a unary call, ready to be made many times.
type Method struct {
	Path    string // "/package.Service/Method"
	Request []byte // in protobuf
}

// HealthCheck is the call that most servers answer.
func HealthCheck() Method { return Method{Path: healthpb.Health_Check_FullMethodName} }

// Find asks the server's reflection service what name is, "package.Service/Method",
// and puts data, a message in JSON, into its form. Empty data is an empty message.
func Find(ctx context.Context, cc grpc.ClientConnInterface, name, data string) (Method, error) {
	service, method, ok := strings.Cut(strings.TrimPrefix(name, "/"), "/")
	if !ok || service == "" || method == "" {
		return Method{}, fmt.Errorf("load: method %q: want package.Service/Method", name)
	}
	files, err := describe(ctx, cc, service)
	if err != nil {
		return Method{}, err
	}
	found, err := files.FindDescriptorByName(protoreflect.FullName(service))
	if err != nil {
		return Method{}, fmt.Errorf("load: the server's reflection service describes no %s: %w", service, err)
	}
	sd, ok := found.(protoreflect.ServiceDescriptor)
	if !ok {
		return Method{}, fmt.Errorf("load: %s is no service", service)
	}
	md := sd.Methods().ByName(protoreflect.Name(method))
	if md == nil {
		return Method{}, fmt.Errorf("load: %s has no method %q, but %s", service, method, methodNames(sd))
	}
	if md.IsStreamingClient() || md.IsStreamingServer() {
		return Method{}, fmt.Errorf("load: %s is a streaming method, want a unary one", name)
	}
	request, err := fill(md.Input(), data)
	if err != nil {
		return Method{}, err
	}
	return Method{Path: "/" + service + "/" + method, Request: request}, nil
}

func methodNames(sd protoreflect.ServiceDescriptor) string {
	names := make([]string, 0, sd.Methods().Len())
	for i := range sd.Methods().Len() {
		names = append(names, string(sd.Methods().Get(i).Name()))
	}
	return strings.Join(names, ", ")
}

func fill(input protoreflect.MessageDescriptor, data string) ([]byte, error) {
	message := dynamicpb.NewMessage(input)
	if strings.TrimSpace(data) != "" {
		if err := protojson.Unmarshal([]byte(data), message); err != nil {
			return nil, fmt.Errorf("load: the message is no %s: %w", input.FullName(), err)
		}
	}
	request, err := proto.Marshal(message)
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	return request, nil
}

// reflections are the methods of the reflection service, by version. Older servers
// have only the last. Its messages are the same but for the package's name, which is
// not on the wire.
var reflections = []string{
	reflectpb.ServerReflection_ServerReflectionInfo_FullMethodName,
	"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
}

// describe fetches the file that defines a symbol, and all that it needs, by the
// newest version of the reflection service that the server has.
func describe(ctx context.Context, cc grpc.ClientConnInterface, symbol string) (files *protoregistry.Files, err error) {
	for _, reflection := range reflections {
		files, err = describeBy(ctx, cc, reflection, symbol)
		if status.Code(err) != codes.Unimplemented {
			return files, err
		}
	}
	return nil, fmt.Errorf("load: the server has no reflection service (%w); enable reflection there, or leave out --method", err)
}

func describeBy(ctx context.Context, cc grpc.ClientConnInterface, reflection, symbol string) (*protoregistry.Files, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream
	stream, err := cc.NewStream(ctx, &reflectpb.ServerReflection_ServiceDesc.Streams[0], reflection)
	if err != nil {
		return nil, fmt.Errorf("load: the server's reflection service: %w", err)
	}
	set := &fileSet{
		stream: &grpc.GenericClientStream[reflectpb.ServerReflectionRequest, reflectpb.ServerReflectionResponse]{ClientStream: stream},
		have:   make(map[string]bool),
	}
	if err := set.fetch(&reflectpb.ServerReflectionRequest{
		MessageRequest: &reflectpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: symbol},
	}); err != nil {
		return nil, err
	}
	for missing := set.missing(); missing != ""; missing = set.missing() {
		if err := set.fetch(&reflectpb.ServerReflectionRequest{
			MessageRequest: &reflectpb.ServerReflectionRequest_FileByFilename{FileByFilename: missing},
		}); err != nil {
			return nil, err
		}
		if !set.have[missing] {
			return nil, fmt.Errorf("load: the server's reflection service does not give %q", missing)
		}
	}
	files, err := protodesc.NewFiles(&set.files)
	if err != nil {
		return nil, fmt.Errorf("load: what the server's reflection service describes: %w", err)
	}
	return files, nil
}

// fileSet are the files that have come so far.
type fileSet struct {
	stream grpc.BidiStreamingClient[reflectpb.ServerReflectionRequest, reflectpb.ServerReflectionResponse]
	files  descriptorpb.FileDescriptorSet
	have   map[string]bool
}

const maxFiles = 10_000 // a server may describe without end

func (s *fileSet) fetch(request *reflectpb.ServerReflectionRequest) error {
	// The error of a failed Send is what Recv returns.
	_ = s.stream.Send(request)
	answer, err := s.stream.Recv()
	if err != nil {
		return fmt.Errorf("load: the server's reflection service: %w", err)
	}
	if e := answer.GetErrorResponse(); e != nil {
		return fmt.Errorf("load: the server's reflection service says: %q", e.GetErrorMessage())
	}
	for _, data := range answer.GetFileDescriptorResponse().GetFileDescriptorProto() {
		file := new(descriptorpb.FileDescriptorProto)
		if err := proto.Unmarshal(data, file); err != nil {
			return fmt.Errorf("load: a description of the server's reflection service: %w", err)
		}
		if !s.have[file.GetName()] {
			s.have[file.GetName()] = true
			s.files.File = append(s.files.File, file)
		}
	}
	if len(s.files.GetFile()) > maxFiles {
		return errors.New("load: the server's reflection service describes too many files")
	}
	return nil
}

// missing is a file that one of those here needs, or "".
func (s *fileSet) missing() string {
	for _, file := range s.files.GetFile() {
		for _, needed := range file.GetDependency() {
			if !s.have[needed] {
				return needed
			}
		}
	}
	return ""
}
