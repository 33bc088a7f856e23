//go:build !race

package fleet_test

const smallFleet = 100
