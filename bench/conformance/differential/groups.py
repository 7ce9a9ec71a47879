"""Consumer groups: every refusal, and the way through all states."""

from .side import Side

def joining(
    group, member="", *, session=10_000, kind="consumer", protocols=(("range", b"m"),), instance=None, version=5
):
    fields = {"group_id": group, "session_timeout_ms": session, "member_id": member, "protocol_type": kind}
    fields["protocols"] = [{"name": name, "metadata": raw} for name, raw in protocols]
    if version >= 1:
        fields["rebalance_timeout_ms"] = 3000
    if version >= 5:
        fields["group_instance_id"] = instance
    return fields


def scenario_group_errors(side: Side) -> None:
    side.coordinator(side.name("e"))
    group = side.name("e")
    for version in range(9 + 1):
        own = side.name(f"ej{version}")
        side.coordinator(own)
        side.ask(f"join unknown member v{version}", "JoinGroup", version, **joining(own, "nobody", version=version))
    for step, fields in {
        "empty group": joining(""),
        "session short": joining(group, session=5),
        "session long": joining(group, session=1 << 30),
        "session negative": joining(group, session=-1),
        "no type": joining(group, kind=""),
        "no protocols": joining(group, protocols=()),
        "empty instance": joining(group, instance=""),
        "instance of an unknown member": joining(group, "nobody", instance="i"),
        "long metadata": joining(group, protocols=(("range", b"m" * 100_000),)),
    }.items():
        side.ask(f"join {step}", "JoinGroup", 5, **fields)
    for version in range(4 + 1):
        side.ask(f"heartbeat v{version}", "Heartbeat", version, group_id=group, generation_id=1, member_id="nobody")
        side.ask(
            f"heartbeat empty group v{version}", "Heartbeat", version, group_id="", generation_id=1, member_id="nobody"
        )
    for version in range(5 + 1):
        more = {"protocol_type": "consumer", "protocol_name": "range"} if version >= 5 else {}
        fields = {"generation_id": 1, "member_id": "nobody", "assignments": [], **more}
        side.ask(f"sync v{version}", "SyncGroup", version, group_id=group, **fields)
        side.ask(f"sync empty group v{version}", "SyncGroup", version, group_id="", **fields)
    for version in range(5 + 1):
        who = (
            {"member_id": "nobody"}
            if version < 3
            else {
                "members": [
                    {"member_id": "nobody", "group_instance_id": None},
                    {"member_id": "", "group_instance_id": "i"},
                ]
            }
        )
        side.ask(f"leave v{version}", "LeaveGroup", version, group_id=group, **who)
        side.ask(f"leave empty group v{version}", "LeaveGroup", version, group_id="", **who)
    side.ask("leave nobody", "LeaveGroup", 4, group_id=group, members=[])
    one = side.topic("committed", 2)
    missing = side.name("missing")

    def commit(step, version=7, generation=-1, member="", group=group, topics=((one, 0),), metadata="note", offset=5):
        indexes: dict[str, list[int]] = {}
        for name, index in topics:
            indexes.setdefault(name, []).append(index)
        row = lambda n: {"partition_index": n, "committed_offset": offset, "committed_metadata": metadata}  # noqa: E731
        rows = [{"name": name, "partitions": [row(n) for n in found]} for name, found in indexes.items()]
        side.ask(
            step,
            "OffsetCommit",
            version,
            group_id=group,
            generation_id_or_member_epoch=generation,
            member_id=member,
            topics=rows,
        )

    for version in range(2, 9 + 1):
        commit(f"commit v{version}", version=version, group=side.name(f"commit{version}"))
    commit("commit unknown member", generation=1, member="nobody")
    commit("commit member without generation", member="nobody")
    commit("commit generation without member", generation=1)
    commit("commit unknown group, generation", generation=1, member="nobody", group=side.name("nogroup"))
    commit("commit empty group", group="")
    commit("commit unknown", topics=((one, 0), (one, 7), (missing, 0), (one, -1), ("", 0)))
    commit("commit long note", metadata="n" * 4097)
    commit("commit null note", metadata=None)
    commit("commit negative offset", offset=-5)
    commit("commit nothing", topics=())
    commit(
        "commit only unknown, wrong group",
        topics=((missing, 0),),
        generation=3,
        member="nobody",
        group=side.name("nogroup"),
    )
    fetched = side.name("commit7")
    asked = [{"name": one, "partition_indexes": [0, 1, 9]}, {"name": missing, "partition_indexes": [0]}]
    for version in range(1, 7 + 1):
        side.ask(f"offsets v{version}", "OffsetFetch", version, group_id=fetched, topics=asked)
    for version in range(2, 7 + 1):
        side.ask(f"all offsets v{version}", "OffsetFetch", version, group_id=fetched, topics=None)
    for version in (8, 9):
        groups = [
            {"group_id": fetched, "topics": asked},
            {"group_id": side.name("nogroup"), "topics": None},
            {"group_id": "", "topics": asked},
        ]
        side.ask(f"offsets v{version}", "OffsetFetch", version, groups=groups)
    side.ask(
        "offsets v9 of a member",
        "OffsetFetch",
        9,
        groups=[{"group_id": fetched, "member_id": "nobody", "member_epoch": 3, "topics": asked}],
    )
    side.ask("offsets of no group", "OffsetFetch", 8, groups=[])
    side.ask("offsets of an unknown group", "OffsetFetch", 5, group_id=side.name("nogroup"), topics=asked)
    side.ask("offsets of the empty group", "OffsetFetch", 5, group_id="", topics=asked)
    for version in range(6 + 1):
        side.ask(f"describe v{version}", "DescribeGroups", version, groups=[side.name("nogroup"), fetched, ""])
    side.ask("describe nobody", "DescribeGroups", 5, groups=[])
    side.ask("describe operations", "DescribeGroups", 5, groups=[fetched], include_authorized_operations=True)


def scenario_groups(side: Side) -> None:
    group, one = side.name("happy"), side.topic("happy")
    side.coordinator(group)
    told = side.ask("join, id required", "JoinGroup", 7, **joining(group, version=7))
    member = told["member_id"]
    joined = side.ask("join", "JoinGroup", 7, **joining(group, member, version=7))
    side.ask("join again", "JoinGroup", 7, **joining(group, member, version=7))
    side.ask(
        "heartbeat completing", "Heartbeat", 4, group_id=group, generation_id=joined["generation_id"], member_id=member
    )

    def sync(
        step,
        version=5,
        generation=joined["generation_id"],
        member_id=member,
        kind="consumer",
        name="range",
        given=b"plan",
    ):
        more = {"protocol_type": kind, "protocol_name": name} if version >= 5 else {}
        plan = [{"member_id": member, "assignment": given}] if given else []
        side.ask(
            step,
            "SyncGroup",
            version,
            group_id=group,
            generation_id=generation,
            member_id=member_id,
            assignments=plan,
            **more,
        )

    sync("sync wrong generation", generation=99)
    sync("sync wrong type", kind="connect")
    sync("sync wrong name", name="sticky")
    sync("sync null type", kind=None, name=None)
    sync("sync unknown member", member_id="nobody")
    sync("sync")
    sync("sync again", given=b"")
    beat = lambda step, **more: side.ask(
        step, "Heartbeat", 4, **{"group_id": group, "generation_id": 1, "member_id": member, **more}
    )  # noqa: E731
    beat("heartbeat")
    beat("heartbeat wrong generation", generation_id=5)
    beat("heartbeat unknown instance", group_instance_id="i")
    row = [{"name": one, "partitions": [{"partition_index": 0, "committed_offset": 3, "committed_metadata": "n"}]}]
    for step, generation, who in [
        ("", 1, member),
        (" wrong generation", 7, member),
        (" older generation", 0, member),
        (" unknown member", 1, "nobody"),
        (" simple", -1, ""),
    ]:
        side.ask(
            "commit" + step,
            "OffsetCommit",
            8,
            group_id=group,
            generation_id_or_member_epoch=generation,
            member_id=who,
            topics=row,
        )
    for version in range(6 + 1):
        side.ask(f"describe v{version}", "DescribeGroups", version, groups=[group])
    side.ask("offsets", "OffsetFetch", 8, groups=[{"group_id": group, "topics": None}])
    for version in range(5 + 1):
        listed = side.talk.ask("ListGroups", version)
        listed["groups"] = [g for g in listed["groups"] if g["group_id"] == group]
        side.note(f"list v{version}", listed)
    for step, filters in {
        "stable": {"states_filter": ["Stable"]},
        "stable in capitals": {"states_filter": ["STABLE"]},
        "empty": {"states_filter": ["Empty"]},
        "no such state": {"states_filter": ["Sleeping"]},
        "classic": {"types_filter": ["classic"]},
        "consumer": {"types_filter": ["consumer"]},
        "no such type": {"types_filter": ["quaint"]},
    }.items():
        listed = side.talk.ask("ListGroups", 5, **filters)
        listed["groups"] = [g for g in listed["groups"] if g["group_id"] == group]
        side.note(f"list {step}", listed)
    side.ask("join wrong type", "JoinGroup", 7, **joining(group, kind="connect", version=7))
    side.ask("join wrong protocols", "JoinGroup", 7, **joining(group, protocols=(("sticky", b""),), version=7))
    side.ask("rejoin of the leader", "JoinGroup", 7, **joining(group, member, version=7))
    beat("heartbeat of an old generation")
    leave = {
        "members": [
            {"member_id": member, "group_instance_id": None},
            {"member_id": "nobody", "group_instance_id": None},
        ]
    }
    side.ask("leave", "LeaveGroup", 4, group_id=group, **leave)
    side.ask("describe left", "DescribeGroups", 5, groups=[group])
    side.ask("leave again", "LeaveGroup", 4, group_id=group, **leave)
    side.ask(
        "commit simple when empty",
        "OffsetCommit",
        8,
        group_id=group,
        generation_id_or_member_epoch=-1,
        member_id="",
        topics=row,
    )
    static = side.name("static")
    side.coordinator(static)
    first = side.ask("static join", "JoinGroup", 7, **joining(static, instance="i1", version=7))
    plan = [{"member_id": first["member_id"], "assignment": b"p"}]
    side.ask(
        "static sync",
        "SyncGroup",
        5,
        group_id=static,
        generation_id=1,
        member_id=first["member_id"],
        group_instance_id="i1",
        protocol_type="consumer",
        protocol_name="range",
        assignments=plan,
    )
    for version in (7, 9):
        again = side.ask(
            f"static return v{version}", "JoinGroup", version, **joining(static, instance="i1", version=version)
        )
    fenced = {"group_id": static, "generation_id": 1, "member_id": first["member_id"], "group_instance_id": "i1"}
    side.ask("static fenced heartbeat", "Heartbeat", 4, **fenced)
    side.ask(
        "static fenced sync", "SyncGroup", 5, protocol_type="consumer", protocol_name="range", assignments=[], **fenced
    )
    side.ask("static fenced join", "JoinGroup", 7, **joining(static, first["member_id"], instance="i1", version=7))
    side.ask(
        "static sync again",
        "SyncGroup",
        5,
        group_id=static,
        generation_id=1,
        member_id=again["member_id"],
        group_instance_id="i1",
        protocol_type="consumer",
        protocol_name="range",
        assignments=[],
    )
    side.ask("static describe", "DescribeGroups", 5, groups=[static])
    side.ask(
        "static leave fenced",
        "LeaveGroup",
        4,
        group_id=static,
        members=[{"member_id": first["member_id"], "group_instance_id": "i1"}],
    )
    side.ask("static leave", "LeaveGroup", 4, group_id=static, members=[{"member_id": "", "group_instance_id": "i1"}])
