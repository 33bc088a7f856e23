package main

import _ "embed"

// program is a module whose tests run.
type program struct {
	name       string
	tested     module
	companions []module // modules of the same program that make channels
	unserved   []string // modules that it requires and that cannot be had
	without    []string // its files that need those
	packages   []string // patterns, from the module's root
	expected   string   // the differences that are known, in the format of results.ReadList
}

type module struct{ path, version string }

const (
	everything       = "./..."
	etcdVersion      = "v3.7.3"
	collectorVersion = "v0.165.0"
	configVersion    = "v1.71.0" // of the collector's stable modules, in the same release
)

var (
	etcdClient = module{"go.etcd.io/etcd/client/v3", etcdVersion}
	configgrpc = module{"go.opentelemetry.io/collector/config/configgrpc", configVersion}

	//go:embed etcd.txt
	etcdExpected string
	//go:embed dskit.txt
	dskitExpected string
)

var programs = []program{
	{
		name:     "etcd-client",
		tested:   etcdClient,
		packages: []string{everything},
	},
	{
		name:       "etcd",
		tested:     module{"go.etcd.io/etcd/tests/v3", etcdVersion},
		companions: []module{etcdClient},
		unserved:   []string{"go.etcd.io/etcd/cache/v3"},
		without:    []string{"integration/cache_test.go"},
		packages:   []string{"./integration/clientv3/..."},
		expected:   etcdExpected,
	},
	{
		name:     "collector-configgrpc",
		tested:   configgrpc,
		packages: []string{everything},
	},
	{
		name:       "collector-otlp",
		tested:     module{"go.opentelemetry.io/collector/exporter/otlpexporter", collectorVersion},
		companions: []module{configgrpc},
		packages:   []string{everything},
	},
	{
		name:     "dskit",
		tested:   module{"github.com/grafana/dskit", "v0.0.0-20260703122047-de1ec7541c44"},
		packages: []string{"./server/...", "./httpgrpc/...", "./middleware/...", "./grpcclient/...", "./crypto/tls/...", "./ring/client/..."},
		expected: dskitExpected,
	},
}
