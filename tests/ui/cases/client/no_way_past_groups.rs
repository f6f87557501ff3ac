use streamjobs::{Client, EntryId};

fn read_without_a_group(client: &Client) {
    client.read("orders");
}

fn acknowledge_by_hand(client: &Client, id: EntryId) {
    client.acknowledge("orders", "mail", id);
}

fn main() {}
