package main

import (
	"context"
	"fmt"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
)

func events(what string, r clientv3.WatchResponse) {
	say("%s: %d events, at %d, created %v, canceled %v, compacted at %d, %s", what, len(r.Events), r.Header.GetRevision(),
		r.Created, r.Canceled, r.CompactRevision, text(r.Err()))
	for _, e := range r.Events {
		say("  %s %s, before: %s, create %v", e.Type, pair(e.Kv), pair(e.PrevKv), e.IsCreate())
	}
}

func next(ctx context.Context, ch clientv3.WatchChan) clientv3.WatchResponse {
	select {
	case r, open := <-ch:
		if !open {
			must(fmt.Errorf("the watch was closed"))
		}
		return r
	case <-ctx.Done():
		must(ctx.Err())
		panic("unreachable")
	}
}

func watch(ctx context.Context, c *clientv3.Client) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	all := c.Watch(ctx, "w/", clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithCreatedNotify())
	events("created", next(ctx, all))
	one := c.Watch(ctx, "w/1", clientv3.WithCreatedNotify())
	next(ctx, one)
	deletes := c.Watch(ctx, "w/", clientv3.WithPrefix(), clientv3.WithFilterPut(), clientv3.WithCreatedNotify())
	next(ctx, deletes)
	got(c.Put(ctx, "w/1", "1"))
	got(c.Put(ctx, "w/2", "2"))
	got(c.Put(ctx, "w/1", "11"))
	got(c.Txn(ctx).Then(clientv3.OpPut("w/1", "111"), clientv3.OpDelete("w/2"), clientv3.OpPut("w/3", "3")).Commit())
	got(c.Delete(ctx, "w/", clientv3.WithPrefix()))
	for range 5 {
		events("all", next(ctx, all))
	}
	for range 4 {
		events("one", next(ctx, one))
	}
	for range 2 {
		events("deletes", next(ctx, deletes))
	}
}

func watchResumed(ctx context.Context, c *clientv3.Client) {
	first := got(c.Put(ctx, "w/1", "1")).Header.Revision
	for n := 2; n <= 5; n++ {
		got(c.Put(ctx, "w/1", fmt.Sprint(n)))
	}
	resume := func(rev int64) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		ch := c.Watch(ctx, "w/1", clientv3.WithRev(rev))
		values := []string{}
		for len(values) < int(first+5-rev) {
			for _, e := range next(ctx, ch).Events {
				values = append(values, fmt.Sprintf("%d=%s", e.Kv.ModRevision, e.Kv.Value))
			}
		}
		say("from %d: %v", rev, values)
	}
	resume(first)
	resume(first + 3)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	future := c.Watch(ctx, "w/1", clientv3.WithRev(first+7), clientv3.WithCreatedNotify())
	next(ctx, future)
	for n := 6; n <= 8; n++ {
		got(c.Put(ctx, "w/1", fmt.Sprint(n)))
	}
	events("from the future", next(ctx, future))
}

func watchProgress(ctx context.Context, c *clientv3.Client) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	periodic := c.Watch(ctx, "w/none", clientv3.WithProgressNotify(), clientv3.WithCreatedNotify())
	next(ctx, periodic)
	rev := got(c.Put(ctx, "w/other", "")).Header.Revision
	for {
		r := next(ctx, periodic)
		if !r.IsProgressNotify() || r.Header.Revision > rev {
			events("not expected", r)
			break
		}
		if r.Header.Revision == rev {
			say("told of %d without an event", rev)
			break
		}
	}
	asked, cancelAsked := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancelAsked()
	manual := c.Watch(asked, "w/none", clientv3.WithCreatedNotify())
	next(asked, manual)
	must(c.RequestProgress(asked))
	events("asked for progress", next(asked, manual))
}

func watchFragments(ctx context.Context, c *clientv3.Client) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	value := strings.Repeat("x", 400*1024)
	puts := []clientv3.Op{}
	for n := range 3 {
		puts = append(puts, clientv3.OpPut(fmt.Sprint("large/", n), value))
	}
	rev := got(c.Txn(ctx).Then(puts...).Commit()).Header.Revision
	got(c.Txn(ctx).Then(puts...).Commit())
	ch := c.Watch(ctx, "large/", clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithFragment(), clientv3.WithRev(rev))
	seen := 0
	for seen < 6 {
		r := next(ctx, ch)
		must(r.Err())
		for _, e := range r.Events {
			before := 0
			if e.PrevKv != nil {
				before = len(e.PrevKv.Value)
			}
			say("%s at %d: %d bytes, before %d", e.Kv.Key, e.Kv.ModRevision, len(e.Kv.Value), before)
			seen++
		}
	}
	got(c.Delete(ctx, "large/", clientv3.WithPrefix()))
}
