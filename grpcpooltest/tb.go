package grpcpooltest

// TB is what this package needs of a *testing.T, *testing.B or *testing.F, or of
// another test framework's equivalent.
type TB interface {
	Helper()
	Cleanup(f func())
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}
