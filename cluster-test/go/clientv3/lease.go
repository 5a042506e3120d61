package main

import (
	"bytes"
	"context"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

func lease(ctx context.Context, c *clientv3.Client) {
	granted := got(c.Grant(ctx, 600))
	say("granted %d, ID positive %v", granted.TTL, granted.ID > 0)
	got(c.Put(ctx, "l/b", "1", clientv3.WithLease(granted.ID)))
	got(c.Put(ctx, "l/a", "1", clientv3.WithLease(granted.ID)))
	got(c.Put(ctx, "l/c", "1", clientv3.WithLease(granted.ID)))
	got(c.Put(ctx, "l/c", "2"))
	show("attached", got(c.Get(ctx, "l/", clientv3.WithPrefix())))
	ttl := got(c.TimeToLive(ctx, granted.ID, clientv3.WithAttachedKeys()))
	slices.SortFunc(ttl.Keys, bytes.Compare) // etcd gives them in the order of a Go map, that is in none
	say("granted %d, left about that %v, %d keys: %s", ttl.GrantedTTL, ttl.TTL > 590 && ttl.TTL <= 600, len(ttl.Keys), ttl.Keys)
	ttl = got(c.TimeToLive(ctx, granted.ID))
	say("without keys: %d", len(ttl.Keys))
	say("once: %d", got(c.KeepAliveOnce(ctx, granted.ID)).TTL)
	say("leases: %d", len(got(c.Leases(ctx)).Leases))
	got(c.Put(ctx, "l/a", "", clientv3.WithIgnoreValue(), clientv3.WithIgnoreLease()))
	r := got(c.Txn(ctx).If(clientv3.Compare(clientv3.LeaseValue("l/a"), "=", granted.ID)).Commit())
	say("the lease is kept and compared: %v", r.Succeeded)
	revoked := got(c.Revoke(ctx, granted.ID))
	say("revoked at %d", revoked.Header.Revision)
	show("left", got(c.Get(ctx, "l/", clientv3.WithPrefix())))
	say("leases: %d", len(got(c.Leases(ctx)).Leases))
	_, err := c.KeepAliveOnce(ctx, granted.ID)
	say("kept alive: %s", text(err))
	_, err = c.Put(ctx, "l/a", "", clientv3.WithLease(granted.ID))
	say("used again: %s", text(err))
	_, err = c.Grant(ctx, 9_000_000_001)
	say("too long: %s", text(err))
}

// One lease is kept alive by the library and outlives another of the same length that is not.
func leaseExpiry(ctx context.Context, c *clientv3.Client) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	kept, left := got(c.Grant(ctx, 2)), got(c.Grant(ctx, 2))
	answers := got(c.KeepAlive(ctx, kept.ID))
	got(c.Put(ctx, "l/kept", "", clientv3.WithLease(kept.ID)))
	put := got(c.Put(ctx, "l/left", "", clientv3.WithLease(left.ID)))
	started := time.Now()
	say("first answer: %d", (<-answers).TTL)
	gone := c.Watch(ctx, "l/left", clientv3.WithRev(put.Header.Revision+1))
	e := next(ctx, gone).Events[0]
	early := time.Since(started) < 1800*time.Millisecond
	say("%s %s, early %v", e.Type, e.Kv.Key, early)
	say("gone: %d", got(c.TimeToLive(ctx, left.ID)).TTL)
	// It would have gone with the other one.
	for len(answers) > 0 {
		<-answers
	}
	say("kept: %d", got(c.TimeToLive(ctx, kept.ID)).GrantedTTL)
	show("left", got(c.Get(ctx, "l/kept", clientv3.WithCountOnly())))
	got(c.Revoke(ctx, kept.ID))
	for range answers {
	}
	say("the answers end with the lease")
}
