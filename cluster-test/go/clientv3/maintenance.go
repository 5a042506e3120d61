package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
)

func maintenance(ctx context.Context, c *clientv3.Client) {
	endpoint := c.Endpoints()[0]
	s := got(c.Status(ctx, endpoint))
	for s.StorageVersion != "3.7.0" { // etcd says 3.5.0 until the cluster has agreed on a version
		s = got(c.Status(ctx, endpoint))
	}
	say("version %s, storage %s, leader itself %v, learner %v, quota %d, errors %v", s.Version, s.StorageVersion,
		s.Leader == s.Header.MemberId, s.IsLearner, s.DbSizeQuota, s.Errors)
	say("sizes %v, applied %v", s.DbSize > 0 && s.DbSizeInUse > 0 && s.DbSizeInUse <= s.DbSize,
		s.RaftAppliedIndex <= s.RaftIndex && s.RaftAppliedIndex > 0 && s.RaftTerm > 0)
	now := base(ctx, c)
	h, again := got(c.HashKV(ctx, endpoint, 0)), got(c.HashKV(ctx, endpoint, now))
	say("hash of now, equal %v, of the current revision %v, compacted at %d", h.Hash == again.Hash,
		h.HashRevision == now && h.Header.Revision == now, h.CompactRevision)
	early := got(c.HashKV(ctx, endpoint, 20))
	say("hash at %d: %d", early.HashRevision, early.Hash)
	_, err := c.HashKV(ctx, endpoint, now+1)
	say("hash of the future: %s", text(err))
	alarms := got(c.AlarmList(ctx))
	say("alarms %d", len(alarms.Alarms))
	_, err = c.AlarmDisarm(ctx, &clientv3.AlarmMember{})
	say("disarm nothing: %s", text(err))
	_, err = c.Defragment(ctx, endpoint)
	say("defragment: %s", text(err))
	_, err = c.MoveLeader(ctx, s.Header.MemberId)
	say("move the lead to oneself: %s", text(err))
	_, err = c.MoveLeader(ctx, 12345)
	say("move the lead to nobody: %s", text(err))
	_, err = c.Downgrade(ctx, clientv3.DowngradeValidate, "3.5.0")
	say("downgrade too far: %s", text(err))
}

func compact(ctx context.Context, c *clientv3.Client) {
	endpoint := c.Endpoints()[0]
	at := got(c.Put(ctx, "c", "1")).Header.Revision
	got(c.Put(ctx, "c", "2"))
	got(c.Delete(ctx, "c"))
	got(c.Compact(ctx, at+1, clientv3.WithCompactPhysical()))
	_, err := c.Get(ctx, "c", clientv3.WithRev(at))
	say("below: %s", text(err))
	say("at it: %s", got(c.Get(ctx, "c", clientv3.WithRev(at+1))).Kvs[0].Value)
	_, err = c.Compact(ctx, at+1)
	say("again: %s", text(err))
	_, err = c.Compact(ctx, at)
	say("backwards: %s", text(err))
	r := next(ctx, c.Watch(ctx, "c", clientv3.WithRev(at)))
	say("watch from below: canceled %v, compacted %v, %s", r.Canceled, r.CompactRevision == at+1, text(r.Err()))
	r = next(ctx, c.Watch(ctx, "c", clientv3.WithRev(at+1)))
	say("watch from it: %d events", len(r.Events))
	_, err = c.HashKV(ctx, endpoint, at)
	say("hash below: %s", text(err))
	say("compacted at what was asked %v", got(c.HashKV(ctx, endpoint, 0)).CompactRevision == at+1)
	got(c.Compact(ctx, at+2, clientv3.WithCompactPhysical()))
	say("at the deletion: %d", got(c.Get(ctx, "c", clientv3.WithRev(at+2))).Count)
}

func snapshot(ctx context.Context, c *clientv3.Client) {
	r := got(c.SnapshotWithVersion(ctx))
	all := got(io.ReadAll(r.Snapshot))
	must(r.Snapshot.Close())
	end := len(all) - sha256.Size
	sum := sha256.Sum256(all[:end])
	say("version %s, whole blocks and a digest %v, digest right %v, ends %v", r.Version, len(all)%512 == sha256.Size,
		bytes.Equal(sum[:], all[end:]), r.Header != nil)
}

func members(ctx context.Context, c *clientv3.Client) {
	list := got(c.MemberList(ctx))
	m := list.Members[0]
	say("%d member, %s, learner %v, at %v, header revision %d", len(list.Members), m.Name, m.IsLearner,
		strings.Contains(m.ClientURLs[0], c.Endpoints()[0]), list.Header.Revision)
	say("serializable: %d", len(got(c.MemberList(ctx, clientv3.WithSerializable())).Members))
	_, err := c.MemberRemove(ctx, 12345)
	say("remove nobody: %s", text(err))
	_, err = c.MemberUpdate(ctx, 12345, []string{"http://127.0.0.1:1"})
	say("update nobody: %s", text(err))
	_, err = c.MemberPromote(ctx, 12345)
	say("promote nobody: %s", text(err))
	_, err = c.MemberPromote(ctx, m.ID)
	say("promote a voter: %s", text(err))
	_, err = c.MemberAdd(ctx, []string{"not a url"})
	say("add nonsense: %s", text(err))
	_, err = c.MemberAdd(ctx, m.PeerURLs)
	say("add the same address: %s", text(err))
}

func users(ctx context.Context, c *clientv3.Client) {
	s := got(c.AuthStatus(ctx))
	say("enabled %v, revision %d", s.Enabled, s.AuthRevision)
	got(c.RoleAdd(ctx, "reader"))
	_, err := c.RoleAdd(ctx, "reader")
	say("the role again: %s", text(err))
	got(c.RoleGrantPermission(ctx, "reader", "a", "b", clientv3.PermissionType(clientv3.PermRead)))
	got(c.RoleGrantPermission(ctx, "reader", "c", "", clientv3.PermissionType(clientv3.PermReadWrite)))
	for _, p := range got(c.RoleGet(ctx, "reader")).Perm {
		say("may %s %q to %q", p.PermType, p.Key, p.RangeEnd)
	}
	got(c.UserAdd(ctx, "alice", "secret"))
	_, err = c.UserAdd(ctx, "alice", "secret")
	say("the user again: %s", text(err))
	_, err = c.UserGrantRole(ctx, "alice", "writer")
	say("no such role: %s", text(err))
	got(c.UserGrantRole(ctx, "alice", "reader"))
	say("alice has %v", got(c.UserGet(ctx, "alice")).Roles)
	say("users %v, roles %v", got(c.UserList(ctx)).Users, got(c.RoleList(ctx)).Roles)
	_, err = c.RoleRevokePermission(ctx, "reader", "x", "")
	say("no such permission: %s", text(err))
	_, err = c.Authenticate(ctx, "alice", "secret")
	say("authenticate without authentication: %s", text(err))
	_, err = c.AuthEnable(ctx)
	say("enable without root: %s", text(err))
	got(c.UserRevokeRole(ctx, "alice", "reader"))
	got(c.UserDelete(ctx, "alice"))
	got(c.RoleDelete(ctx, "reader"))
	_, err = c.UserGet(ctx, "alice")
	say("no such user: %s", text(err))
	say("revision %d", got(c.AuthStatus(ctx)).AuthRevision)
}
