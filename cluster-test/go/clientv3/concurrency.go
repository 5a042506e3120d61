package main

import (
	"context"
	"fmt"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	recipe "go.etcd.io/etcd/client/v3/experimental/recipes"
)

func session(c *clientv3.Client) *concurrency.Session { return got(concurrency.NewSession(c)) }

// waitFor asks the server until a prefix holds so many keys.
func waitFor(ctx context.Context, c *clientv3.Client, prefix string, count int64) {
	for got(c.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())).Count != count {
	}
}

func mutex(ctx context.Context, c *clientv3.Client) {
	one, two := session(c), session(c)
	first, second := concurrency.NewMutex(one, "m"), concurrency.NewMutex(two, "m")
	must(first.Lock(ctx))
	say("locked %s at %d", named(first.Key(), one.Lease()), first.Header().Revision)
	say("tried: %s", text(second.TryLock(ctx)))
	say("owner: %v", got(c.Txn(ctx).If(first.IsOwner()).Commit()).Succeeded)
	order := make(chan string, 2)
	done := make(chan error)
	go func() {
		err := second.Lock(ctx)
		order <- "second locked"
		done <- err
	}()
	waitFor(ctx, c, "m/", 2)
	order <- "first unlocks"
	must(first.Unlock(ctx))
	must(<-done)
	say("%s, %s", <-order, <-order)
	say("owner: %v", got(c.Txn(ctx).If(first.IsOwner()).Commit()).Succeeded)
	// A session's end unlocks what it holds.
	must(two.Close())
	must(first.TryLock(ctx))
	say("locked again %s", named(first.Key(), one.Lease()))
	must(one.Close())
	say("keys left: %d", got(c.Get(ctx, "m/", clientv3.WithPrefix())).Count)
}

func election(ctx context.Context, c *clientv3.Client) {
	one, two := session(c), session(c)
	defer two.Close()
	first, second := concurrency.NewElection(one, "e"), concurrency.NewElection(two, "e")
	_, err := first.Leader(ctx)
	say("nobody leads: %s", text(err))
	must(first.Campaign(ctx, "one"))
	say("elected %s at %d", named(first.Key(), one.Lease()), first.Rev())
	observed := second.Observe(ctx)
	say("observed %s", (<-observed).Kvs[0].Value)
	must(first.Proclaim(ctx, "one again"))
	say("observed %s", (<-observed).Kvs[0].Value)
	won := make(chan error)
	go func() { won <- second.Campaign(ctx, "two") }()
	waitFor(ctx, c, "e/", 2)
	say("leads: %s", got(second.Leader(ctx)).Kvs[0].Value)
	must(first.Resign(ctx))
	must(<-won)
	say("observed %s", (<-observed).Kvs[0].Value)
	say("proclaim without leading: %s", text(first.Proclaim(ctx, "one")))
	resumed := concurrency.ResumeElection(two, "e", second.Key(), second.Rev())
	must(resumed.Proclaim(ctx, "two resumed"))
	say("observed %s", (<-observed).Kvs[0].Value)
	must(one.Close())
	must(resumed.Resign(ctx))
	_, err = second.Leader(ctx)
	say("nobody leads: %s", text(err))
}

func stm(ctx context.Context, c *clientv3.Client) {
	levels := []concurrency.Isolation{concurrency.SerializableSnapshot, concurrency.Serializable, concurrency.RepeatableReads}
	for _, level := range levels {
		for n := range 5 {
			got(c.Put(ctx, fmt.Sprint("account/", n), "..........")) // ten each
		}
		var all sync.WaitGroup
		for worker := range 4 {
			all.Add(1)
			go func() {
				defer all.Done()
				for n := range 10 {
					from, to := fmt.Sprint("account/", (worker+n)%5), fmt.Sprint("account/", (worker+2*n+1)%5)
					move := func(s concurrency.STM) error {
						if have := s.Get(from); from != to && len(have) > 0 {
							s.Put(to, s.Get(to)+".")
							s.Put(from, have[1:])
						}
						return nil
					}
					got(concurrency.NewSTM(c, move, concurrency.WithIsolation(level), concurrency.WithAbortContext(ctx)))
				}
			}()
		}
		all.Wait()
		sum := 0
		for _, kv := range got(c.Get(ctx, "account/", clientv3.WithPrefix())).Kvs {
			sum += len(kv.Value)
		}
		say("isolation %d: %d of 50 after 40 moves", level, sum)
	}
	// As many revisions as moves that were not tried again in vain: how many is up to the machine, so the next steps begin anew.
	got(c.Delete(ctx, "account/", clientv3.WithPrefix()))
}

func recipes(ctx context.Context, c *clientv3.Client) {
	queue := recipe.NewQueue(c, "queue")
	for n := range 3 {
		must(queue.Enqueue(fmt.Sprint("task ", n)))
	}
	say("%s, %s, %s", got(queue.Dequeue()), got(queue.Dequeue()), got(queue.Dequeue()))
	urgent := recipe.NewPriorityQueue(c, "urgent")
	must(urgent.Enqueue("later", 9))
	must(urgent.Enqueue("now", 1))
	say("%s, %s", got(urgent.Dequeue()), got(urgent.Dequeue()))
	barrier := recipe.NewBarrier(c, "barrier")
	must(barrier.Hold())
	say("held twice: %s", text(barrier.Hold()))
	passed := make(chan error)
	go func() { passed <- barrier.Wait() }()
	must(barrier.Release())
	must(<-passed)
	say("the barrier is open")
	one, two := session(c), session(c)
	defer one.Close()
	defer two.Close()
	reader, writer := recipe.NewRWMutex(one, "rw"), recipe.NewRWMutex(two, "rw")
	must(reader.RLock())
	written := make(chan error)
	go func() { written <- writer.Lock() }()
	waitFor(ctx, c, "rw/", 2)
	must(reader.RUnlock())
	must(<-written)
	must(writer.Unlock())
	say("the writer came after the reader")
}
