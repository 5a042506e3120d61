package main

import (
	"context"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func pair(kv *mvccpb.KeyValue) string {
	if kv == nil {
		return "none"
	}
	lease := ""
	if kv.Lease != 0 {
		lease = " leased"
	}
	return fmt.Sprintf("%q=%q created %d modified %d version %d%s",
		kv.Key, short(kv.Value), kv.CreateRevision, kv.ModRevision, kv.Version, lease)
}

func show(what string, r *clientv3.GetResponse) {
	say("%s: at %d, count %d, more %v", what, r.Header.Revision, r.Count, r.More)
	for _, kv := range r.Kvs {
		say("  %s", pair(kv))
	}
}

func kv(ctx context.Context, c *clientv3.Client) {
	put := got(c.Put(ctx, "a", "1"))
	say("put at %d, before: %s", put.Header.Revision, pair(put.PrevKv))
	put = got(c.Put(ctx, "a", "2", clientv3.WithPrevKV()))
	say("put at %d, before: %s", put.Header.Revision, pair(put.PrevKv))
	show("get", got(c.Get(ctx, "a")))
	show("get serializable", got(c.Get(ctx, "a", clientv3.WithSerializable())))
	show("get before", got(c.Get(ctx, "a", clientv3.WithRev(put.Header.Revision-1))))
	show("get none", got(c.Get(ctx, "none")))
	put = got(c.Put(ctx, "a", "", clientv3.WithIgnoreValue()))
	show("value kept", got(c.Get(ctx, "a")))
	del := got(c.Delete(ctx, "a", clientv3.WithPrevKV()))
	say("deleted %d at %d: %s", del.Deleted, del.Header.Revision, pair(del.PrevKvs[0]))
	del = got(c.Delete(ctx, "a"))
	say("deleted %d at %d", del.Deleted, del.Header.Revision)
	got(c.Put(ctx, "\x00\xff", "\xfe\x00"))
	show("bytes", got(c.Get(ctx, "\x00\xff")))
	say("deleted %d", got(c.Delete(ctx, "\x00", clientv3.WithFromKey())).Deleted)
}

func ranges(ctx context.Context, c *clientv3.Client) {
	for _, kv := range []string{"r/b=1", "r/d=4", "r/a=3", "r/c=2", "r/a=5", "r/d=0"} {
		key, value, _ := strings.Cut(kv, "=")
		got(c.Put(ctx, key, value))
	}
	prefix := clientv3.WithPrefix()
	show("prefix", got(c.Get(ctx, "r/", prefix)))
	show("range", got(c.Get(ctx, "r/b", clientv3.WithRange("r/d"))))
	show("from key", got(c.Get(ctx, "r/c", clientv3.WithFromKey())))
	show("keys only", got(c.Get(ctx, "r/", prefix, clientv3.WithKeysOnly())))
	show("count only", got(c.Get(ctx, "r/", prefix, clientv3.WithCountOnly())))
	show("limit", got(c.Get(ctx, "r/", prefix, clientv3.WithLimit(2))))
	targets := []clientv3.SortTarget{clientv3.SortByKey, clientv3.SortByVersion, clientv3.SortByCreateRevision,
		clientv3.SortByModRevision, clientv3.SortByValue}
	for _, target := range targets {
		for _, order := range []clientv3.SortOrder{clientv3.SortNone, clientv3.SortAscend, clientv3.SortDescend} {
			r := got(c.Get(ctx, "r/", prefix, clientv3.WithSort(target, order)))
			keys := []string{}
			for _, kv := range r.Kvs {
				keys = append(keys, string(kv.Key))
			}
			say("sorted by %d, order %d: %v", target, order, keys)
		}
	}
	show("first created", got(c.Get(ctx, "r/", clientv3.WithFirstCreate()...)))
	show("last revision", got(c.Get(ctx, "r/", clientv3.WithLastRev()...)))
	middle := got(c.Get(ctx, "r/c")).Kvs[0].ModRevision
	show("changed since", got(c.Get(ctx, "r/", prefix, clientv3.WithMinModRev(middle+1))))
	show("changed until", got(c.Get(ctx, "r/", prefix, clientv3.WithMaxModRev(middle))))
	show("created since", got(c.Get(ctx, "r/", prefix, clientv3.WithMinCreateRev(middle))))
	show("created until", got(c.Get(ctx, "r/", prefix, clientv3.WithMaxCreateRev(middle), clientv3.WithLimit(1))))
}

// As Kubernetes lists: pages at the revision of the first one, whatever is written meanwhile.
func pages(ctx context.Context, c *clientv3.Client) {
	for n := range 25 {
		got(c.Put(ctx, fmt.Sprintf("p/%02d", n), fmt.Sprint(n)))
	}
	from, end, rev := "p/", clientv3.GetPrefixRangeEnd("p/"), int64(0)
	for page := 1; ; page++ {
		r := got(c.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(10), clientv3.WithRev(rev)))
		say("page %d: %d of %d, more %v, %q to %q", page, len(r.Kvs), r.Count, r.More,
			r.Kvs[0].Key, r.Kvs[len(r.Kvs)-1].Key)
		if !r.More {
			break
		}
		if rev == 0 {
			rev = r.Header.Revision
		}
		from = string(r.Kvs[len(r.Kvs)-1].Key) + "\x00"
		got(c.Put(ctx, fmt.Sprintf("p/%02d-late", page*10+5), ""))
		got(c.Delete(ctx, fmt.Sprintf("p/%02d", page*10+6)))
	}
	say("now %d", got(c.Get(ctx, "p/", clientv3.WithPrefix(), clientv3.WithCountOnly())).Count)
}

func rangeStream(ctx context.Context, c *clientv3.Client) {
	stream := func(what, key string, opts ...clientv3.OpOption) {
		answers, err := c.GetStream(ctx, key, opts...)
		if err != nil {
			say("%s: %s", what, text(err))
			return
		}
		r, err := clientv3.GetStreamToGetResponse(answers)
		if err != nil {
			say("%s: %s", what, text(err))
			return
		}
		say("%s: %d of %d at %d, more %v", what, len(r.Kvs), r.Count, r.Header.Revision, r.More)
		for at, kv := range r.Kvs {
			if at < 2 || at == len(r.Kvs)-1 {
				say("  %s", pair(kv))
			}
		}
	}
	prefix := clientv3.WithPrefix()
	stream("all", "p/", prefix)
	stream("limited", "p/", prefix, clientv3.WithLimit(17))
	stream("one", "p/01")
	stream("none", "none")
	stream("keys only", "p/", prefix, clientv3.WithKeysOnly())
	stream("count only", "p/", prefix, clientv3.WithCountOnly())
	stream("serializable", "r/", prefix, clientv3.WithSerializable())
	stream("ascending by key", "r/", prefix, clientv3.WithSort(clientv3.SortByKey, clientv3.SortAscend))
	stream("descending", "r/", prefix, clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend))
	stream("by value", "r/", prefix, clientv3.WithSort(clientv3.SortByValue, clientv3.SortAscend))
	stream("filtered", "r/", prefix, clientv3.WithMinModRev(2))
	stream("future", "r/", prefix, clientv3.WithRev(1<<40))
	stream("no key", "")
}

func showTxn(what string, r *clientv3.TxnResponse) {
	say("%s: succeeded %v at %d", what, r.Succeeded, r.Header.Revision)
	for _, op := range r.Responses {
		switch {
		case op.GetResponsePut() != nil:
			say("  put, before: %s", pair(op.GetResponsePut().PrevKv))
		case op.GetResponseRange() != nil:
			say("  got %d of %d", len(op.GetResponseRange().Kvs), op.GetResponseRange().Count)
			for _, kv := range op.GetResponseRange().Kvs {
				say("    %s", pair(kv))
			}
		case op.GetResponseDeleteRange() != nil:
			say("  deleted %d", op.GetResponseDeleteRange().Deleted)
		case op.GetResponseTxn() != nil:
			showTxn("  nested", (*clientv3.TxnResponse)(op.GetResponseTxn()))
		}
	}
}

func txn(ctx context.Context, c *clientv3.Client) {
	create := func() (*clientv3.TxnResponse, error) {
		return c.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision("t"), "=", 0)).
			Then(clientv3.OpPut("t", "created")).Else(clientv3.OpGet("t")).Commit()
	}
	showTxn("create", got(create()))
	showTxn("create again", got(create()))
	revision := got(c.Get(ctx, "t")).Kvs[0].ModRevision
	compares := map[string]clientv3.Cmp{
		"1 value =":        clientv3.Compare(clientv3.Value("t"), "=", "created"),
		"2 value <":        clientv3.Compare(clientv3.Value("t"), "<", "creates"),
		"3 value > none":   clientv3.Compare(clientv3.Value("none"), ">", ""),
		"4 value !=":       clientv3.Compare(clientv3.Value("t"), "!=", "created"),
		"5 version >":      clientv3.Compare(clientv3.Version("t"), ">", 0),
		"6 mod =":          clientv3.Compare(clientv3.ModRevision("t"), "=", revision),
		"7 mod <":          clientv3.Compare(clientv3.ModRevision("t"), "<", revision),
		"8 lease =":        clientv3.Compare(clientv3.LeaseValue("t"), "=", 0),
		"9 prefix version": clientv3.Compare(clientv3.Version("r/"), ">", 0).WithPrefix(),
		"10 prefix value":  clientv3.Compare(clientv3.Value("r/"), ">", "1").WithPrefix(),
		"11 range none":    clientv3.Compare(clientv3.Version("x"), "=", 0).WithRange("y"),
	}
	for at := 1; at <= len(compares); at++ {
		for name, compare := range compares {
			if strings.HasPrefix(name, fmt.Sprint(at)+" ") {
				say("%s: %v", name, got(c.Txn(ctx).If(compare).Commit()).Succeeded)
			}
		}
	}
	showTxn("all in one", got(c.Txn(ctx).Then(
		clientv3.OpPut("t/1", "1"), clientv3.OpPut("t/2", "2"), clientv3.OpGet("t/", clientv3.WithPrefix()),
		clientv3.OpDelete("t"), clientv3.OpGet("t"), clientv3.OpPut("u", "3", clientv3.WithPrevKV())).Commit()))
	showTxn("nested", got(c.Txn(ctx).Then(
		clientv3.OpTxn([]clientv3.Cmp{clientv3.Compare(clientv3.Value("t/1"), "=", "1")},
			[]clientv3.Op{clientv3.OpPut("t/1", "11"), clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpPut("t/3", "3")}, nil)},
			[]clientv3.Op{clientv3.OpDelete("t/", clientv3.WithPrefix())}),
		clientv3.OpGet("t/", clientv3.WithPrefix())).Commit()))
	showTxn("empty", got(c.Txn(ctx).Commit()))
	_, err := c.Txn(ctx).Then(clientv3.OpPut("t/1", "1"), clientv3.OpPut("t/1", "2")).Commit()
	say("twice the same key: %s", text(err))
	_, err = c.Txn(ctx).Then(clientv3.OpPut("t/1", "1"), clientv3.OpDelete("t/", clientv3.WithPrefix())).Commit()
	say("put and deleted: %s", text(err))
	many := []clientv3.Op{}
	for n := range 129 {
		many = append(many, clientv3.OpPut(fmt.Sprint("many", n), ""))
	}
	_, err = c.Txn(ctx).Then(many...).Commit()
	say("129 operations: %s", text(err))
}

func refusals(ctx context.Context, c *clientv3.Client) {
	_, err := c.Put(ctx, "", "1")
	say("no key: %s", text(err))
	_, err = c.Put(ctx, "a", "1", clientv3.WithLease(12345))
	say("no such lease: %s", text(err))
	_, err = c.Put(ctx, "none", "", clientv3.WithIgnoreValue())
	say("no value to keep: %s", text(err))
	_, err = c.Put(ctx, "a", strings.Repeat("x", 1600*1024))
	say("too large: %s", text(err))
	_, err = c.Get(ctx, "a", clientv3.WithRev(1<<40))
	say("future: %s", text(err))
	_, err = c.Compact(ctx, 1<<40)
	say("compact the future: %s", text(err))
	_, err = c.Revoke(ctx, 12345)
	say("revoke no lease: %s", text(err))
	_, err = c.KeepAliveOnce(ctx, 12345)
	say("keep no lease alive: %s", text(err))
	ttl, err := c.TimeToLive(ctx, 12345)
	must(err)
	say("time to live of no lease: %d", ttl.TTL)
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	_, err = c.Get(canceled, "a")
	say("canceled: %s", text(err))
}
