//! A stream with entries and a group, written without the framework.

use streamjobs_tests::server::RedisServer;

/// Six entries, of which the first three are pending for consumer `web-1`.
pub fn server() -> RedisServer {
    let server = RedisServer::start().unwrap();
    server.command(&["XGROUP", "CREATE", "orders", "billing", "0", "MKSTREAM"]);
    for number in 1..=6 {
        let name = if number % 2 == 0 { "order.paid" } else { "order.placed" };
        let data = format!("{{\"card\":\"47{number}\"}}");
        server.command(&["XADD", "orders", &format!("{number}-0"), "type", name, "data", &data]);
    }
    read(&server, "web-1", 3);
    server
}

pub fn read(server: &RedisServer, consumer: &str, count: usize) {
    let count = count.to_string();
    let words =
        ["XREADGROUP", "GROUP", "billing", consumer, "COUNT", &count, "STREAMS", "orders", ">"];
    server.command(&words);
}

/// Writes a heartbeat as an older version does, without counters.
pub fn heartbeat(server: &RedisServer, consumer: &str) {
    heartbeat_with(server, consumer, "");
}

/// Writes a heartbeat with more fields, each after a comma.
pub fn heartbeat_with(server: &RedisServer, consumer: &str, more: &str) {
    let (seconds, _): (u64, u64) = server.query(&["TIME"]);
    let about = "{\"host\":\"a\\u001b[1m\",\"process\":7,\"version\":\"0.1.0\",\"slots\":16,\
                 \"in_flight\":2,\"started\":1764000000000,\"beat_every\":60000";
    let about = format!("{about}{more}}}");
    let (beat, about_field) = (format!("beat:{consumer}"), format!("about:{consumer}"));
    let now = (seconds * 1_000).to_string();
    server.command(&["HSET", "{orders}:group:billing", &beat, &now, &about_field, &about]);
}

/// The pending entries with their consumers, by id.
pub fn owners(server: &RedisServer) -> Vec<(String, String)> {
    let pending = server.pending("orders", "billing");
    pending.into_iter().map(|row| (row.id, row.consumer)).collect()
}

/// The expected value of [`owners`].
pub fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(id, owner)| ((*id).to_owned(), (*owner).to_owned())).collect()
}

pub fn ids(server: &RedisServer) -> Vec<String> {
    server.entries("orders").into_iter().map(|entry| entry.id).collect()
}

/// Schedules events: their ids, and in how many hours each is due.
pub fn schedule(server: &RedisServer, events: &[(&str, u32)]) {
    let script =
        "local due = string.format('%.0f', redis.call('TIME')[1] * 1000 + ARGV[2] * 3600000)
        redis.call('HSET', KEYS[2], '', '1', ARGV[1], cmsgpack.pack({'type', 'order.placed',
            'data', 'card 4711', 'sj-id', ARGV[1], 'sj-key', 'alice', 'sj-due', due}))
        redis.call('ZADD', KEYS[1], due, ARGV[1])";
    for (id, hours) in events {
        let keys = ["{orders}:later", "{orders}:later-records"];
        server.command(&["EVAL", script, "2", keys[0], keys[1], id, &hours.to_string()]);
    }
}

/// Stores schedules by hand, each due within an hour, with a payload that no command may show.
pub fn put_schedules(server: &RedisServer, schedules: &[(&str, &str)]) {
    let script = "local clock = redis.call('TIME')[1] * 1000
        local fields = cmsgpack.pack({'type', 'order.placed', 'data', 'card 4711'})
        local about = cjson.encode({cron = ARGV[2], zone = 'UTC', missed = 'one',
            event = 'order.placed'})
        redis.call('HSET', KEYS[2], ARGV[1], cmsgpack.pack({'digest', 'stored', about, #fields}),
            ARGV[1] .. '#', cmsgpack.pack({since = clock}), ARGV[1] .. '##', fields, '#', 1)
        redis.call('ZADD', KEYS[1], string.format('%.0f', clock + 3600000), ARGV[1])";
    for (name, cron) in schedules {
        let keys = ["{orders}:schedules", "{orders}:schedule-specs"];
        server.command(&["EVAL", script, "2", keys[0], keys[1], name, cron]);
    }
}
