package main

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	"go.etcd.io/etcd/client/v3/leasing"
	"go.etcd.io/etcd/client/v3/mirror"
	"go.etcd.io/etcd/client/v3/namespace"
	"go.etcd.io/etcd/client/v3/ordering"
)

// base is the revision before a step: what a step prints does not depend on how often another one tried.
func base(ctx context.Context, c *clientv3.Client) int64 {
	return got(c.Get(ctx, "none")).Header.Revision
}

func namespaced(ctx context.Context, c *clientv3.Client) {
	inside := namespace.NewKV(c.KV, "ns/")
	watcher := namespace.NewWatcher(c.Watcher, "ns/")
	ch := watcher.Watch(ctx, "k", clientv3.WithRev(base(ctx, c)+1))
	got(inside.Put(ctx, "k", "1"))
	say("inside %q, outside %q", got(inside.Get(ctx, "k")).Kvs[0].Key, got(c.Get(ctx, "ns/k")).Kvs[0].Key)
	say("watched %q", next(ctx, ch).Events[0].Kv.Key)
	say("all inside: %d", got(inside.Get(ctx, "", clientv3.WithPrefix())).Count)
	r := got(inside.Txn(ctx).If(clientv3.Compare(clientv3.Value("k"), "=", "1")).Then(clientv3.OpDelete("k")).Commit())
	say("txn inside: %v", r.Succeeded)
	ordered := ordering.NewKV(c.KV, func(op clientv3.Op, resp clientv3.OpResponse, prev int64) error {
		return fmt.Errorf("answered out of order")
	})
	for range 20 {
		got(ordered.Put(ctx, "ns/o", ""))
		got(ordered.Get(ctx, "ns/o", clientv3.WithSerializable()))
	}
	say("in order")
}

func leased(ctx context.Context, c *clientv3.Client) {
	kv, done, err := leasing.NewKV(c, "leasing/")
	must(err)
	defer done()
	got(c.Put(ctx, "cached", "1"))
	say("read %s", got(kv.Get(ctx, "cached")).Kvs[0].Value)
	got(kv.Put(ctx, "cached", "2"))
	say("read %s, stored %s", got(kv.Get(ctx, "cached")).Kvs[0].Value, got(c.Get(ctx, "cached")).Kvs[0].Value)
	say("txn %v", got(kv.Txn(ctx).If(clientv3.Compare(clientv3.Value("cached"), "=", "2")).
		Then(clientv3.OpPut("cached", "3")).Commit()).Succeeded)
	say("deleted %d", got(kv.Delete(ctx, "cached")).Deleted)
}

func mirrored(ctx context.Context, c *clientv3.Client) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for n := range 30 {
		got(c.Put(ctx, fmt.Sprintf("mirror/%02d", n), fmt.Sprint(n)))
	}
	syncer := mirror.NewSyncer(c, "mirror/", 0)
	pages, errs := syncer.SyncBase(ctx)
	keys := 0
	for page := range pages {
		keys += len(page.Kvs)
	}
	must(<-errs)
	got(c.Put(ctx, "mirror/new", "1"))
	e := next(ctx, syncer.SyncUpdates(ctx)).Events[0]
	say("%d keys, then %s %q", keys, e.Type, e.Kv.Key)
}

func kube(ctx context.Context, c *clientv3.Client) {
	k := kubernetes.Client{Client: c}
	k.Kubernetes = k
	before := base(ctx, c)
	key := "/registry/pods/default/"
	for n := range 7 {
		r := got(k.OptimisticPut(ctx, fmt.Sprint(key, n), []byte("v1"), 0, kubernetes.PutOptions{}))
		say("created %d: %v, %d later", n, r.Succeeded, r.Revision-before)
	}
	one := got(k.Get(ctx, key+"3", kubernetes.GetOptions{}))
	say("got %q, modified %d later", one.KV.Value, one.KV.ModRevision-before)
	r := got(k.OptimisticPut(ctx, key+"3", []byte("v2"), one.KV.ModRevision, kubernetes.PutOptions{GetOnFailure: true}))
	say("updated %v", r.Succeeded)
	r = got(k.OptimisticPut(ctx, key+"3", []byte("v3"), one.KV.ModRevision, kubernetes.PutOptions{GetOnFailure: true}))
	say("updated with a stale revision %v, there is %q", r.Succeeded, r.KV.Value)
	d := got(k.OptimisticDelete(ctx, key+"3", one.KV.ModRevision, kubernetes.DeleteOptions{GetOnFailure: true}))
	say("deleted with a stale revision %v, there is %q", d.Succeeded, d.KV.Value)
	from, at := "", int64(0)
	for {
		page := got(k.List(ctx, key, kubernetes.ListOptions{Limit: 3, Continue: from, Revision: at}))
		say("page of %d, count %d", len(page.Kvs), page.Count)
		if int64(len(page.Kvs)) == page.Count || len(page.Kvs) < 3 {
			break
		}
		at = page.Revision
		from = string(page.Kvs[len(page.Kvs)-1].Key) + "\x00"
		got(k.OptimisticPut(ctx, key+"9"+from, []byte("later"), 0, kubernetes.PutOptions{}))
	}
	say("counted %d", got(k.Count(ctx, key, kubernetes.CountOptions{})))
	d = got(k.OptimisticDelete(ctx, key+"3", r.KV.ModRevision, kubernetes.DeleteOptions{}))
	say("deleted %v", d.Succeeded)
}
