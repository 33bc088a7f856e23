module github.com/davidwartell/go-grpcpool

go 1.26
