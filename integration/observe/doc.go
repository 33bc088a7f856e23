// Package observe tests what a pool shows of itself where its users would look:
// metrics as an OpenTelemetry collector receives them and as Prometheus scrapes
// them, the dashboard that draws them, and the live page in a real browser. The
// browser is Debian's chromium; without it those tests skip, or fail if the
// environment variable GRPCPOOL_REQUIRE_ALL is set.
package observe
