//! Several watches on one stream: created, resumed, canceled, compacted, filtered, asked for progress.

use etcd_client::{Client, DeleteOptions, Error, EventType, WatchFilterType, WatchOptions, WatchResponse, WatchStream};

use crate::{pair, revision, step};

async fn next(stream: &mut WatchStream) -> Result<WatchResponse, Error> {
    Ok(stream.message().await?.expect("the stream stays"))
}

fn show(answer: &WatchResponse) {
    println!(
        "watch {}: at {}, created {}, canceled {} {:?}, compacted at {}",
        answer.watch_id(),
        revision(answer.header()),
        answer.created(),
        answer.canceled(),
        answer.cancel_reason(),
        answer.compact_revision()
    );
    for event in answer.events() {
        let kind = match event.event_type() {
            EventType::Put => "put",
            EventType::Delete => "delete",
        };
        println!("  {kind} {}, before: {}", pair(event.kv()), pair(event.prev_kv()));
    }
}

pub async fn run(client: &mut Client) -> Result<(), Error> {
    step("watch");
    let first = revision(client.put("w/1", "1", None).await?.header());
    client.put("w/2", "2", None).await?;
    let from = WatchOptions::new().with_prefix().with_prev_key().with_start_revision(first);
    let mut stream = client.watch("w/", Some(from.with_watch_id(5))).await?;
    show(&next(&mut stream).await?);
    // Two revisions that are read from history come in one answer or in two: the machine's speed decides.
    let mut seen = 0;
    while seen < 2 {
        seen += next(&mut stream).await?.events().len();
    }
    println!("caught up with {seen} events");
    client.put("w/1", "3", None).await?;
    show(&next(&mut stream).await?);
    client.delete("w/", Some(DeleteOptions::new().with_prefix())).await?;
    show(&next(&mut stream).await?);

    stream.watch("w/", Some(WatchOptions::new().with_prefix().with_watch_id(5))).await?;
    show(&next(&mut stream).await?);
    stream.watch("z", Some(WatchOptions::new().with_range("a").with_watch_id(6))).await?;
    show(&next(&mut stream).await?);
    let filtered = WatchOptions::new().with_filters([WatchFilterType::NoPut]).with_watch_id(8);
    stream.watch("w/3", Some(filtered)).await?;
    show(&next(&mut stream).await?);
    stream.cancel(5).await?;
    show(&next(&mut stream).await?);
    client.put("w/3", "1", None).await?;
    client.delete("w/3", None).await?;
    show(&next(&mut stream).await?);
    stream.cancel(99).await?;
    stream.request_progress().await?;
    show(&next(&mut stream).await?);

    // On a stream of its own: etcd tells no progress on a stream with a watch that was compacted, until that one is canceled as well.
    let from = WatchOptions::new().with_start_revision(1).with_watch_id(7);
    let mut compacted = client.watch("w/1", Some(from)).await?;
    show(&next(&mut compacted).await?);
    show(&next(&mut compacted).await?);
    Ok(())
}
