//! Addresses to listen on, network cards, and the kernel's limits of connections.

use std::ops::RangeInclusive;

use heizer_runtime::machine::LISTEN_BACKLOG;

use super::facts::{InterfaceFacts, ListenerFacts, ListenerState, NetworkFacts, number};
use super::finding::{Finding, size};

/// Below this a connection over some distance cannot fill its link.
const BUFFER_MAX_BYTES: u64 = 4 << 20;

pub(super) fn judge(facts: &NetworkFacts) -> Vec<Finding> {
    let mut findings: Vec<Finding> =
        facts.listeners.iter().map(|listener| judge_listener(facts, listener)).collect();
    findings.extend(facts.listeners.iter().filter_map(|listener| ephemeral(facts, listener)));
    findings.extend(facts.interfaces.iter().map(|interface| judge_interface(facts, interface)));
    let backlogs =
        [("net.core.somaxconn", &facts.somaxconn), ("net.ipv4.tcp_max_syn_backlog", &facts.syn_backlog)];
    findings.extend(backlogs.iter().filter_map(|(name, value)| backlog(name, value)));
    let buffers = [("net.ipv4.tcp_rmem", &facts.receive_buffers), ("net.ipv4.tcp_wmem", &facts.send_buffers)];
    findings.extend(buffers.iter().filter_map(|(name, value)| buffer(name, value)));
    findings
}

fn judge_listener(facts: &NetworkFacts, listener: &ListenerFacts) -> Finding {
    let ListenerFacts { flag, address, port, state } = listener;
    let subject = format!("listener {address}");
    match state {
        ListenerState::Free => Finding::ok(subject, "free"),
        ListenerState::InUse if facts.is_running => {
            Finding::ok(subject, "in use, as it has to be while the broker runs")
        }
        ListenerState::InUse => {
            let remedy =
                format!("see who it is with `ss -ltnp sport = :{port}`, or choose another one with {flag}");
            Finding::problem(subject, "somebody else listens there", remedy)
        }
        ListenerState::Impossible(reason) => {
            let found = format!("nobody can listen there ({reason})");
            Finding::problem(subject, found, format!("give an address of this host with {flag}"))
        }
    }
}

/// A port that outgoing connections may take while the broker is down.
fn ephemeral(facts: &NetworkFacts, listener: &ListenerFacts) -> Option<Finding> {
    let port = listener.port;
    let range = port_range(facts.ephemeral_ports.as_ref()?, char::is_whitespace)?;
    let reserved = facts.reserved_ports.as_deref().unwrap_or_default();
    let is_reserved = |part: &str| port_range(part, |c| c == '-').is_some_and(|ports| ports.contains(&port));
    if !range.contains(&port) || reserved.split(',').any(is_reserved) {
        return None;
    }
    let found =
        format!("port {port} is among those that outgoing connections take, who may have it at a restart");
    let list = if reserved.is_empty() { port.to_string() } else { format!("{reserved},{port}") };
    let remedy =
        format!("`sysctl -w net.ipv4.ip_local_reserved_ports={list}`, and for good in /etc/sysctl.d");
    Some(Finding::advice(format!("listener {}", listener.address), found, remedy))
}

/// One port, or two with a separator between them.
fn port_range(text: &str, is_separator: impl Fn(char) -> bool) -> Option<RangeInclusive<u16>> {
    let mut ports = text.split(is_separator).filter(|part| !part.is_empty()).map(str::parse::<u16>);
    let first = ports.next()?.ok()?;
    let last = ports.next().unwrap_or(Ok(first)).ok()?;
    Some(first..=last)
}

fn judge_interface(facts: &NetworkFacts, interface: &InterfaceFacts) -> Finding {
    let InterfaceFacts { name, receive_queues } = interface;
    let subject = format!("network card {name}");
    let (queues, cores) = (receive_queues.len(), facts.cores);
    let hands_on = |cpus: &String| cpus.chars().any(|digit| digit != '0' && digit != ',');
    if receive_queues.iter().any(hands_on) {
        return Finding::ok(
            subject,
            format!("{queues} receive queues, whose packets are handed on to other CPUs"),
        );
    }
    if queues >= cores {
        return Finding::ok(subject, format!("{queues} receive queues for {cores} cores"));
    }
    let found = format!("{queues} receive queues for {cores} cores: as many CPUs take in all packets");
    let remedy = format!(
        "`ethtool -L {name} combined {cores}` where the card has so many (`ethtool -l {name}`); else \
         `echo {} | tee /sys/class/net/{name}/queues/rx-*/rps_cpus`",
        cpu_mask(facts.cpus)
    );
    Finding::advice(subject, found, remedy)
}

/// The first CPUs as the kernel's bit masks are written: words of 32 bits in hexadecimal, the highest first.
fn cpu_mask(cpus: usize) -> String {
    const WORD: usize = 32;
    let word = |at: usize| match cpus.saturating_sub(at * WORD) {
        bits if bits >= WORD => u32::MAX,
        bits => (1_u32 << bits) - 1,
    };
    let highest = cpus.saturating_sub(1) / WORD;
    let mut words = vec![format!("{:x}", word(highest))];
    words.extend((0..highest).rev().map(|at| format!("{:08x}", word(at))));
    words.join(",")
}

fn backlog(name: &str, value: &Option<String>) -> Option<Finding> {
    let value = number(value)?;
    if value >= u64::from(LISTEN_BACKLOG) {
        return Some(Finding::ok(name, value.to_string()));
    }
    let found = format!("{value}: when many clients come back at once, more than that are turned away");
    Some(Finding::advice(name, found, format!("`sysctl -w {name}=4096`, and for good in /etc/sysctl.d")))
}

/// Least, first and greatest size of a connection's buffer.
fn buffer(name: &str, value: &Option<String>) -> Option<Finding> {
    let value = value.as_ref()?;
    let greatest: u64 = value.split_whitespace().nth(2)?.parse().ok()?;
    if greatest >= BUFFER_MAX_BYTES {
        return Some(Finding::ok(name, format!("up to {}", size(greatest))));
    }
    let found = format!("up to {}, too little for a fast link over some distance", size(greatest));
    let wanted: Vec<&str> = value.split_whitespace().take(2).collect();
    let remedy =
        format!("`sysctl -w {name}=\"{} 16777216\"`, and for good in /etc/sysctl.d", wanted.join(" "));
    Some(Finding::advice(name, found, remedy))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    fn text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn good() -> NetworkFacts {
        NetworkFacts {
            listeners: vec![ListenerFacts {
                flag: "--listen",
                address: "10.0.0.1:9092".to_owned(),
                port: 9092,
                state: ListenerState::Free,
            }],
            is_running: false,
            interfaces: vec![InterfaceFacts {
                name: "eth0".to_owned(),
                receive_queues: vec!["00".to_owned(); 8],
            }],
            cpus: 8,
            cores: 8,
            somaxconn: text("4096"),
            syn_backlog: text("2048"),
            receive_buffers: text("4096\t131072\t6291456"),
            send_buffers: text("4096\t16384\t4194304"),
            ephemeral_ports: text("32768\t60999"),
            reserved_ports: text(""),
        }
    }

    /// What is not in order, as `level subject: found -> remedy`.
    fn complaints(change: impl FnOnce(&mut NetworkFacts)) -> String {
        let mut facts = good();
        change(&mut facts);
        let bad = judge(&facts).into_iter().filter(|finding| finding.level != Level::Ok);
        let lines = bad.map(|Finding { subject, level, found, remedy }| {
            format!("{level:?} {subject}: {found} -> {}", remedy.expect("what is bad can be mended"))
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    fn says(found: String, level: Level, expected: &[&str]) {
        assert!(found.starts_with(&format!("{level:?}")) && !found.contains('\n'), "{found}");
        assert!(expected.iter().all(|text| found.contains(text)), "{found}");
    }

    #[test]
    fn a_good_host_is_not_complained_of() {
        assert_eq!(complaints(|_| ()), "");
        assert_eq!(complaints(|facts| facts.interfaces.clear()), "");
        assert_eq!(complaints(|facts| (facts.somaxconn, facts.send_buffers) = (None, None)), "");
        let handed_on =
            |facts: &mut NetworkFacts| facts.interfaces[0].receive_queues = vec!["0f,00".to_owned()];
        assert_eq!(complaints(handed_on), "");
        let in_use = |facts: &mut NetworkFacts| {
            facts.listeners[0].state = ListenerState::InUse;
            facts.is_running = true;
        };
        assert_eq!(complaints(in_use), "");
    }

    #[test]
    fn an_address_that_cannot_be_listened_on_is_a_problem() {
        let with = |state| complaints(|facts| facts.listeners[0].state = state);
        says(
            with(ListenerState::InUse),
            Level::Problem,
            &["10.0.0.1:9092", "ss -ltnp sport = :9092", "--listen"],
        );
        let reason = "Cannot assign requested address".to_owned();
        says(with(ListenerState::Impossible(reason)), Level::Problem, &["Cannot assign", "--listen"]);
    }

    #[test]
    fn a_port_that_others_may_take_is_to_be_reserved() {
        let with = |port, reserved: &str| {
            complaints(|facts| {
                facts.listeners[0].port = port;
                facts.reserved_ports = text(reserved);
            })
        };
        says(with(40_000, ""), Level::Advice, &["ip_local_reserved_ports=40000"]);
        says(with(40_000, "8080,9000-9100"), Level::Advice, &["=8080,9000-9100,40000`"]);
        for reserved in ["40000", "8080,39000-41000"] {
            assert_eq!(with(40_000, reserved), "");
        }
        assert_eq!(with(32_767, ""), "");
        assert_eq!(with(61_000, ""), "");
    }

    #[test]
    fn a_card_with_few_queues_is_to_have_more_or_to_hand_packets_on() {
        let one = |facts: &mut NetworkFacts| facts.interfaces[0].receive_queues.truncate(1);
        says(
            complaints(one),
            Level::Advice,
            &["eth0: 1 receive queues for 8 cores", "combined 8", "echo ff | tee /sys/class/net/eth0"],
        );
    }

    #[test]
    fn masks_are_words_of_32_bits() {
        let expected = [
            (1, "1"),
            (4, "f"),
            (31, "7fffffff"),
            (32, "ffffffff"),
            (33, "1,ffffffff"),
            (64, "ffffffff,ffffffff"),
        ];
        for (cpus, mask) in expected {
            assert_eq!(cpu_mask(cpus), mask);
        }
    }

    #[test]
    fn limits_that_are_too_low_come_with_the_command_that_raises_them() {
        says(
            complaints(|facts| facts.somaxconn = text("128")),
            Level::Advice,
            &["sysctl -w net.core.somaxconn=4096"],
        );
        says(
            complaints(|facts| facts.syn_backlog = text("512")),
            Level::Advice,
            &["tcp_max_syn_backlog=4096"],
        );
        says(
            complaints(|facts| facts.receive_buffers = text("4096\t131072\t1048576")),
            Level::Advice,
            &["up to 1 MiB", "sysctl -w net.ipv4.tcp_rmem=\"4096 131072 16777216\""],
        );
    }
}
