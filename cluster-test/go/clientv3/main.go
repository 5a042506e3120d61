// Uses a server through etcd's own client library, and prints what it answered: the same lines in every run, on every server that
// is right. What differs from run to run (lease IDs, terms, sizes) is left out or named.
//
//	main         the steps in order, what they print with
//	kv           puts, ranges, paging, range streams, transactions, compaction
//	watch        resumed, progress, previous values, fragments
//	lease        keep-alive, expiry, attached keys
//	concurrency  sessions, mutexes, elections, software transactions
//	wrappers     namespace, leasing, mirror, Kubernetes' calls
//	maintenance  status, hashes, snapshot, members, users
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/status"
)

// Long enough for a busy machine; nothing waits for it where all is well.
const within = 60 * time.Second

type step struct {
	name string
	run  func(ctx context.Context, c *clientv3.Client)
}

var steps = []step{
	{"kv", kv}, {"ranges", ranges}, {"pages", pages}, {"range stream", rangeStream}, {"txn", txn}, {"errors", refusals},
	{"watch", watch}, {"watch resumed", watchResumed}, {"watch progress", watchProgress}, {"watch fragments", watchFragments},
	{"lease", lease}, {"lease expiry", leaseExpiry},
	{"mutex", mutex}, {"election", election}, {"stm", stm}, {"recipes", recipes},
	{"namespace", namespaced}, {"leasing", leased}, {"mirror", mirrored}, {"kubernetes", kube},
	{"maintenance", maintenance}, {"compact", compact}, {"snapshot", snapshot}, {"members", members}, {"users", users},
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: clientv3 ENDPOINT")
		os.Exit(2)
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{os.Args[1]}, DialTimeout: within, Logger: zap.NewNop()})
	must(err)
	for _, step := range steps {
		fmt.Printf("== %s\n", step.name)
		ctx, cancel := context.WithTimeout(context.Background(), within)
		step.run(ctx, c)
		cancel()
	}
	say("closed: %v", c.Close())
}

func say(format string, args ...any) { fmt.Printf(format+"\n", args...) }

// must ends the program where going on would print nonsense.
func must(err error) {
	if err != nil {
		fmt.Printf("FAILED: %s\n", text(err))
		os.Exit(1)
	}
}

func got[T any](answer T, err error) T {
	must(err)
	return answer
}

// text is an error with its gRPC code, however the client library has wrapped it.
func text(err error) string {
	if err == nil {
		return "ok"
	}
	var etcd rpctypes.EtcdError
	if errors.As(err, &etcd) {
		return fmt.Sprintf("%s: %v", etcd.Code(), err)
	}
	if s, ok := status.FromError(err); ok {
		return fmt.Sprintf("%s: %s", s.Code(), s.Message())
	}
	return err.Error()
}

// short is a value that can be printed.
func short(value []byte) string {
	if len(value) > 40 {
		return fmt.Sprintf("<%d bytes>", len(value))
	}
	return string(value)
}

func named(text string, lease clientv3.LeaseID) string {
	return strings.ReplaceAll(text, fmt.Sprintf("%x", int64(lease)), "<lease>")
}
