//! What happens, as server-sent events (HTML Living Standard §9.2). A listener that is too slow misses events and is told how
//! many.

use std::time::Duration;

use hyper::{StatusCode, body::Bytes};
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use super::{
    House,
    health::unix_time,
    reply::{self, Refusal, Reply},
};
use crate::{
    relay::{Event, Heard, Listener, Stamped},
    turn::{FiveTuple, Subject},
};

/// Events between the server and one connection; more wait where they are told.
const ROOM: usize = 16;
/// How often something is sent where nothing happens, so that a connection that is gone is noticed.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

/// Listens as long as the client does.
pub(super) fn listen(house: &House) -> Result<Reply, Refusal> {
    let listener = house.monitor.listen().ok_or_else(|| {
        reply::refused(StatusCode::SERVICE_UNAVAILABLE, "as many listen to events as may; end another one")
    })?;
    let (sender, pieces) = mpsc::channel(ROOM);
    tokio::spawn(pump(listener, sender));
    Ok(reply::stream(pieces))
}

async fn pump(mut listener: Listener, sender: mpsc::Sender<Bytes>) {
    let mut signs = interval(SIGN_OF_LIFE);
    signs.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let piece = tokio::select! {
            () = sender.closed() => return,
            _ = signs.tick() => ": here\n\n".to_owned(),
            heard = listener.next() => match heard {
                Some(Heard::Event(stamped)) => written(&stamped),
                Some(Heard::Missed(events)) => event("missed", &json!({ "events": events })),
                None => return,
            },
        };
        if sender.send(piece.into()).await.is_err() {
            return;
        }
    }
}

fn event(name: &str, data: &Value) -> String {
    // JSON is one line.
    format!("event: {name}\ndata: {data}\n\n")
}

fn client(data: &mut Value, tuple: &FiveTuple) {
    data["client"] = tuple.client.to_string().into();
    data["transport"] = tuple.transport.name().into();
}

fn whose(data: &mut Value, subject: &Subject) {
    data["user"] = Value::from(&*subject.user);
    data["realm"] = Value::from(&*subject.realm);
    data["tenant"] = Value::from(subject.tenant.as_deref());
}

fn addresses(relayed: &[Option<std::net::SocketAddr>; 2]) -> Value {
    relayed.iter().flatten().map(ToString::to_string).collect::<Vec<_>>().into()
}

fn written(stamped: &Stamped) -> String {
    let mut data = json!({ "at": unix_time(stamped.at) });
    let name = match &stamped.event {
        Event::Begins { id, subject, client: tuple, relayed } => {
            client(&mut data, tuple);
            data["id"] = id.to_string().into();
            whose(&mut data, subject);
            data["relayed"] = addresses(relayed);
            "session-begins"
        }
        Event::Moves { id, from, to } => {
            client(&mut data, to);
            data["id"] = id.to_string().into();
            data["from"] = from.client.to_string().into();
            data["from_transport"] = from.transport.name().into();
            "session-moves"
        }
        Event::Ends { summary, relayed } => {
            client(&mut data, &summary.client);
            data["id"] = summary.id.to_string().into();
            whose(&mut data, &summary.subject);
            data["relayed"] = addresses(relayed);
            data["seconds"] = summary.duration.as_secs_f64().into();
            data["to_peers"] = json!({ "packets": summary.to_peers.packets, "bytes": summary.to_peers.bytes });
            data["to_client"] = json!({ "packets": summary.to_client.packets, "bytes": summary.to_client.bytes });
            data["reason"] = summary.reason.name().into();
            "session-ends"
        }
        Event::Refused { client: tuple, method, code, reason, untold } => {
            client(&mut data, tuple);
            data["method"] = Value::from(*method);
            data["code"] = Value::from(*code);
            data["reason"] = reason.as_str().into();
            data["untold"] = Value::from(*untold);
            "refused"
        }
    };
    event(name, &data)
}
