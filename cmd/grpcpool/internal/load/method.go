// Package load loads a server over several kinds of connections in turn, such as a plain
// channel and a pool, and measures them.
//
//	method, err := load.Find(ctx, cc, "shop.v1.Orders/Get", `{"id": 7}`)
//	config := load.Config{Callers: 100, Duration: 5 * time.Second, Timeout: time.Second, Turns: 2}
//	results, err := load.Run(ctx, method, []load.Way{plain, pool}, config, nil)
//
//	method.go  the call, and its message
//	load.go    the callers, and the latencies of their calls
package load

import (
	"cmp"
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

	// Refusable means that a refusal is an answer to be measured too: a status by which
	// the server says, whatever its load, that it does not carry out the call.
	Refusable bool
}

// HealthCheck returns the call that most servers answer. A server that does not implement
// it, or wants a token for it, answers by a refusal.
func HealthCheck() Method {
	return Method{Path: healthpb.Health_Check_FullMethodName, Refusable: true}
}

// refuses reports whether a status with this code is a refusal.
func (m Method) refuses(code codes.Code) bool {
	if !m.Refusable {
		return false
	}
	switch code {
	case codes.Unauthenticated, codes.PermissionDenied, codes.Unimplemented, codes.NotFound:
		return true
	default:
		return false
	}
}

// Find looks up a method, "package.Service/Method", in the server's reflection service.
// data is its request in JSON. Empty data is an empty message.
func Find(ctx context.Context, cc grpc.ClientConnInterface, name, data string) (Method, error) {
	service, method, err := Split(name)
	if err != nil {
		return Method{}, err
	}
	files, err := describe(ctx, cc, service)
	if err != nil {
		return Method{}, err
	}
	found, err := files.FindDescriptorByName(protoreflect.FullName(service))
	if err != nil {
		return Method{}, fmt.Errorf("load: the server's reflection service does not know %s: %w", service, err)
	}
	sd, ok := found.(protoreflect.ServiceDescriptor)
	if !ok {
		return Method{}, fmt.Errorf("load: %s is not a service", service)
	}
	md := sd.Methods().ByName(protoreflect.Name(method))
	if md == nil {
		return Method{}, fmt.Errorf("load: %s has no method %q; it has: %s", service, method, methodNames(sd))
	}
	if md.IsStreamingClient() || md.IsStreamingServer() {
		return Method{}, fmt.Errorf("load: %s is a streaming method; choose a unary one", name)
	}
	request, err := fill(md.Input(), data)
	if err != nil {
		return Method{}, err
	}
	return Method{Path: "/" + service + "/" + method, Request: request}, nil
}

// Split returns the parts of "package.Service/Method", which may begin with a slash as well.
func Split(name string) (service, method string, err error) {
	service, method, _ = strings.Cut(strings.TrimPrefix(name, "/"), "/")
	if service == "" || method == "" || strings.Contains(method, "/") {
		return "", "", fmt.Errorf("load: --method %q: it must be package.Service/Method", name)
	}
	return service, method, nil
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
			return nil, fmt.Errorf("load: --data is not a valid %s: %w", input.FullName(), err)
		}
	}
	request, err := proto.Marshal(message)
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	return request, nil
}

// reflections are the methods of the reflection service, by version. Older servers have
// only the last. Its messages differ only in the name of the package, which is not sent.
var reflections = []string{
	reflectpb.ServerReflection_ServerReflectionInfo_FullMethodName,
	"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
}

// describe fetches the file that defines a symbol and all files that it imports, with
// the newest version of the reflection service that the server has.
func describe(ctx context.Context, cc grpc.ClientConnInterface, symbol string) (files *protoregistry.Files, err error) {
	for _, reflection := range reflections {
		files, err = describeBy(ctx, cc, reflection, symbol)
		if status.Code(err) != codes.Unimplemented {
			return files, err
		}
	}
	return nil, fmt.Errorf("load: the server has no reflection service (%w); enable reflection on the server, or leave out --method", err)
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
			return nil, fmt.Errorf("load: the server's reflection service does not provide the file %q", missing)
		}
	}
	files, err := protodesc.NewFiles(&set.files)
	if err != nil {
		return nil, fmt.Errorf("load: invalid descriptions from the server's reflection service: %w", err)
	}
	return files, nil
}

// fileSet holds the files that have been fetched.
type fileSet struct {
	stream grpc.BidiStreamingClient[reflectpb.ServerReflectionRequest, reflectpb.ServerReflectionResponse]
	files  descriptorpb.FileDescriptorSet
	have   map[string]bool
}

const maxFiles = 10_000 // a server could send files without end

func (s *fileSet) fetch(request *reflectpb.ServerReflectionRequest) error {
	// Recv returns the error of a failed Send.
	_ = s.stream.Send(request)
	answer, err := s.stream.Recv()
	if err != nil {
		return fmt.Errorf("load: the server's reflection service: %w", err)
	}
	if e := answer.GetErrorResponse(); e != nil {
		return fmt.Errorf("load: the server's reflection service does not know %q: it says %q",
			cmp.Or(request.GetFileContainingSymbol(), request.GetFileByFilename()), e.GetErrorMessage())
	}
	for _, data := range answer.GetFileDescriptorResponse().GetFileDescriptorProto() {
		file := new(descriptorpb.FileDescriptorProto)
		if err := proto.Unmarshal(data, file); err != nil {
			return fmt.Errorf("load: invalid description from the server's reflection service: %w", err)
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

// missing returns a file that is imported and not fetched yet, or "".
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
