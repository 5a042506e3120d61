//! Puts, ranges, deletes, transactions, compaction.

use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, Error, GetOptions, GetResponse, PutOptions, SortOrder, SortTarget, Txn,
    TxnOp, TxnOpResponse, TxnResponse,
};

use crate::{pair, refusal, revision, step};

pub async fn run(client: &mut Client) -> Result<(), Error> {
    puts(client).await?;
    ranges(client).await?;
    range_stream(client).await?;
    txns(client).await?;
    compaction(client).await
}

fn show(what: &str, answer: &GetResponse) {
    println!("{what}: at {}, count {}, more {}", revision(answer.header()), answer.count(), answer.more());
    for kv in answer.kvs() {
        println!("  {}", pair(Some(kv)));
    }
}

async fn puts(client: &mut Client) -> Result<(), Error> {
    step("puts");
    let prev = || Some(PutOptions::new().with_prev_key());
    println!("put at {}", revision(client.put("a", "1", None).await?.header()));
    println!("before: {}", pair(client.put("a", "2", prev()).await?.prev_key()));
    println!("before: {}", pair(client.put("fresh", "1", prev()).await?.prev_key()));
    client.put("a", "", Some(PutOptions::new().with_ignore_value())).await?;
    show("value kept", &client.get("a", None).await?);
    client.put(vec![0, 255], vec![254, 0], None).await?;
    show("bytes", &client.get(vec![0, 255], None).await?);
    let deleted = client.delete("a", Some(DeleteOptions::new().with_prev_key())).await?;
    println!("deleted {}: {}", deleted.deleted(), pair(deleted.prev_kvs().first()));
    println!("deleted {}", client.delete("a", None).await?.deleted());
    println!("no key: {}", refusal(client.put("", "1", None).await));
    println!("no lease: {}", refusal(client.put("a", "1", Some(PutOptions::new().with_lease(7))).await));
    println!("no value: {}", refusal(client.put("no", "", Some(PutOptions::new().with_ignore_value())).await));
    println!("both: {}", refusal(client.put("fresh", "1", Some(PutOptions::new().with_ignore_value())).await));
    println!("too large: {}", refusal(client.put("a", vec![b'x'; 1_600_000], None).await));
    println!("deleted {}", client.delete("", Some(DeleteOptions::new().with_all_keys())).await?.deleted());
    Ok(())
}

async fn ranges(client: &mut Client) -> Result<(), Error> {
    step("ranges");
    for (key, value) in [("r/b", "1"), ("r/d", "4"), ("r/a", "3"), ("r/c", "2"), ("r/a", "5"), ("r/d", "0")] {
        client.put(key, value, None).await?;
    }
    let prefix = || GetOptions::new().with_prefix();
    show("prefix", &client.get("r/", Some(prefix())).await?);
    show("range", &client.get("r/b", Some(GetOptions::new().with_range("r/d"))).await?);
    show("from key", &client.get("r/c", Some(GetOptions::new().with_from_key())).await?);
    show("all keys", &client.get("", Some(GetOptions::new().with_all_keys().with_count_only())).await?);
    show("keys only", &client.get("r/", Some(prefix().with_keys_only())).await?);
    show("limit", &client.get("r/", Some(prefix().with_limit(2))).await?);
    show("serializable", &client.get("r/a", Some(GetOptions::new().with_serializable())).await?);
    let targets = [SortTarget::Key, SortTarget::Version, SortTarget::Create, SortTarget::Mod, SortTarget::Value];
    for target in targets {
        for order in [SortOrder::None, SortOrder::Ascend, SortOrder::Descend] {
            let answer = client.get("r/", Some(prefix().with_sort(target, order).with_limit(3))).await?;
            let keys: Vec<_> = answer.kvs().iter().map(|kv| kv.key_str().unwrap_or("?")).collect();
            println!("by {target:?}, {order:?}: {keys:?} of {}, more {}", answer.count(), answer.more());
        }
    }
    let now = client.get("r/c", None).await?;
    let (at, middle) = (revision(now.header()), now.kvs()[0].mod_revision());
    show("changed since", &client.get("r/", Some(prefix().with_min_mod_revision(middle + 1))).await?);
    show("changed until", &client.get("r/", Some(prefix().with_max_mod_revision(middle))).await?);
    show("created since", &client.get("r/", Some(prefix().with_min_create_revision(middle))).await?);
    show("created until", &client.get("r/", Some(prefix().with_max_create_revision(middle).with_limit(1))).await?);
    show("before", &client.get("r/", Some(prefix().with_revision(middle - 1))).await?);
    println!("future: {}", refusal(client.get("r/", Some(prefix().with_revision(at + 1))).await));
    Ok(())
}

async fn range_stream(client: &mut Client) -> Result<(), Error> {
    step("range stream");
    for n in 0..30 {
        client.put(format!("s/{n:02}"), n.to_string(), None).await?;
    }
    for (what, options) in [
        ("all", GetOptions::new().with_prefix()),
        ("limit", GetOptions::new().with_prefix().with_limit(12)),
        ("count", GetOptions::new().with_prefix().with_count_only()),
    ] {
        let mut stream = client.kv_client().get_stream("s/", Some(options)).await?;
        let (mut keys, mut messages, mut last) = (0, 0, (0, false));
        while let Some(message) = stream.message().await? {
            keys += message.kvs().len();
            messages += 1;
            last = (message.count(), message.more());
        }
        println!("{what}: {keys} keys of {}, more {}, in more than one message {}", last.0, last.1, messages > 1);
    }
    Ok(())
}

fn show_txn(what: &str, answer: &TxnResponse) {
    println!("{what}: {} at {}", answer.succeeded(), answer.header().map_or(0, |header| header.revision()));
    for op in answer.op_responses() {
        match op {
            TxnOpResponse::Put(put) => println!("  put, before: {}", pair(put.prev_key())),
            TxnOpResponse::Get(get) => {
                println!("  got {}", get.count());
                get.kvs().iter().for_each(|kv| println!("    {}", pair(Some(kv))));
            }
            TxnOpResponse::Delete(delete) => println!("  deleted {}", delete.deleted()),
            TxnOpResponse::Txn(txn) => show_txn("  nested", &txn),
        }
    }
}

async fn txns(client: &mut Client) -> Result<(), Error> {
    step("txns");
    let create = || {
        Txn::new()
            .when([Compare::create_revision("t", CompareOp::Equal, 0)])
            .and_then([TxnOp::put("t", "created", None)])
            .or_else([TxnOp::get("t", None)])
    };
    show_txn("create", &client.txn(create()).await?);
    show_txn("create again", &client.txn(create()).await?);
    for (what, compare) in [
        ("value", Compare::value("t", CompareOp::Equal, "created")),
        ("value less", Compare::value("t", CompareOp::Less, "created")),
        ("value of none", Compare::value("none", CompareOp::NotEqual, "x")),
        ("version", Compare::version("t", CompareOp::Greater, 0)),
        ("lease", Compare::lease("t", CompareOp::Equal, 0)),
        ("mod of none", Compare::mod_revision("none", CompareOp::Equal, 0)),
        ("prefix", Compare::value("r/", CompareOp::Less, "9").with_prefix()),
        ("range", Compare::version("r/a", CompareOp::Equal, 1).with_range("r/c")),
    ] {
        println!("{what}: {}", client.txn(Txn::new().when([compare])).await?.succeeded());
    }
    let nested = Txn::new()
        .when([Compare::version("t", CompareOp::Equal, 1)])
        .and_then([TxnOp::put("t/1", "1", None), TxnOp::delete("t", None), TxnOp::get("t", None)])
        .or_else([TxnOp::delete("t/", Some(DeleteOptions::new().with_prefix()))]);
    let all = Txn::new().and_then([
        TxnOp::txn(nested),
        TxnOp::put("u", "2", Some(PutOptions::new().with_prev_key())),
        TxnOp::get("t/", Some(GetOptions::new().with_prefix())),
    ]);
    show_txn("nested", &client.txn(all.clone()).await?);
    show_txn("nested again", &client.txn(all).await?);
    show_txn("empty", &client.txn(Txn::new()).await?);
    let twice = Txn::new().and_then([TxnOp::put("t", "1", None), TxnOp::put("t", "2", None)]);
    println!("twice: {}", refusal(client.txn(twice).await));
    let many: Vec<_> = (0..129).map(|n| TxnOp::put(format!("m{n}"), "", None)).collect();
    println!("many: {}", refusal(client.txn(Txn::new().and_then(many)).await));
    Ok(())
}

async fn compaction(client: &mut Client) -> Result<(), Error> {
    step("compaction");
    let at = revision(client.put("c", "1", None).await?.header());
    client.put("c", "2", None).await?;
    println!("compacted, at {}", revision(client.compact(at + 1, None).await?.header()) - at);
    println!("below: {}", refusal(client.get("c", Some(GetOptions::new().with_revision(at))).await));
    show("at it", &client.get("c", Some(GetOptions::new().with_revision(at + 1))).await?);
    println!("again: {}", refusal(client.compact(at + 1, None).await));
    println!("future: {}", refusal(client.compact(at + 2, None).await));
    Ok(())
}
