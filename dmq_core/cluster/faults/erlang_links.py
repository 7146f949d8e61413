"""What a node evaluates to cut, slow and mend the Erlang links to its peers, and to tell which it did that to.

Both ends of a link that is cut stop reading, so that either side waits in vain for the other's ticks, as it would with
a dead switch between them. A false cookie for the peer, in one node alone, refuses new links both ways. Each end of a
slow link has a process that lets it read for a moment once in a while: it finds a link that is made anew, and ends once
its twin at the other end did. All that is in the nodes' memory and ends with them; a note beside their data is left.
Peers are Erlang names; they hold neither quotes nor backslashes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_PEER_ANSWERS_MS = 1000
_NOTE = "dmq-links-"
# Lets all that waits in, and is short beside a delay that is worth the name.
_OPEN_MS = 2
_KNOWN = re.compile(r"\{(alarm|cut|slow),'?([^',}]+)'?(?:,(\d+))?\}")
_WORDS = (
    'Name = fun(Peer) -> list_to_atom("dmq_slow_link_" ++ atom_to_list(Peer)) end, '
    "Read = fun(Peer, How) -> [inet:setopts(Link, [{active, How}]) "
    "|| {Node, Link} <- erlang:system_info(dist_ctrl), Node =:= Peer] end, "
    "Delay = fun(Peer) -> case whereis(Name(Peer)) of undefined -> 0; Pid -> "
    "case process_info(Pid, dictionary) of {_, Words} -> proplists:get_value(delay_ms, Words, 0); _ -> 0 end end end, "
    "End = fun(Which) -> case whereis(Which) of undefined -> ok; Pid -> Ref = monitor(process, Pid), exit(Pid, kill), "
    "receive {'DOWN', Ref, process, _, _} -> ok end end end, "
    f'Note = filename:join(os:getenv("HOME"), "{_NOTE}" ++ atom_to_list(node())), '
)


@dataclass(frozen=True, slots=True)
class Told:
    """What holds at a node: a `cut` or `slow` link to `what` (an Erlang name), by `delay_ms`, or an `alarm` of it."""

    kind: str
    what: str
    delay_ms: int | None = None


def note_name(node: str) -> str:
    """The file in a node's home folder that is left where its links were cut or slowed; by its Erlang name."""
    return _NOTE + node


def noted(expression: str) -> str:
    """The expression with a note before it, so that what was done is found though its maker was killed half way."""
    return (
        f'ok = file:write_file(filename:join(os:getenv("HOME"), "{_NOTE}" ++ atom_to_list(node())), "1"), ' + expression
    )


def cut_expression(peers: Iterable[str]) -> str:
    """What a node evaluates to be cut off from `peers`."""
    return (
        f"{_WORDS}Peers = {_atoms(peers)}, "
        "Slow = [{Peer, Delay(Peer)} || Peer <- Peers, is_pid(whereis(Name(Peer)))], "
        "[begin End(Name(Peer)), Read(Peer, true) end || {Peer, _} <- Slow], "
        "Links = [Link || {Peer, _} = Link <- erlang:system_info(dist_ctrl), lists:member(Peer, Peers)], "
        # What takes time comes first, so that all links break at the same moment. A frozen peer does not answer.
        f"Patience = lists:max([0 | [Ms || {{_, Ms}} <- Slow]]) + {_PEER_ANSWERS_MS}, "
        "Ask = fun(Peer, M, F, A) -> rpc:call(Peer, M, F, A, Patience) end, "
        "[Ask(Peer, erlang, apply, [End, [Name(node())]]) || {Peer, _} <- Slow], "
        "Ends = [{Peer, Ask(Peer, erlang, system_info, [dist_ctrl])} || {Peer, _} <- Links], "
        # Random, so that neither a stranger nor another node that was cut off can know it.
        "False = list_to_atom(binary_to_list(base64:encode(crypto:strong_rand_bytes(24)))), "
        "[erlang:set_cookie(Peer, False) || Peer <- Peers], "
        "[Ask(Peer, inet, setopts, [Port, [{active, false}]]) "
        "|| {Peer, Found} <- Ends, is_list(Found), {Node, Port} <- Found, Node =:= node()], "
        "[ok = inet:setopts(Link, [{active, false}]) || {_, Link} <- Links], ok."
    )


def slow_expression(peers: Iterable[str], delay_ms: int) -> str:
    """What a node evaluates to slow its links to those of `peers` that it sees; it gives these, or `late`."""
    return (
        f"{_WORDS}Peers = [Peer || Peer <- {_atoms(peers)}, lists:member(Peer, nodes()), "
        "erlang:get_cookie(Peer) =:= erlang:get_cookie()], "
        "Self = self(), "
        "Hold = fun(Peer) -> fun() -> "
        f"End(Name(Peer)), register(Name(Peer), self()), put(delay_ms, {delay_ms}), process_flag(priority, high), "
        "Self ! {held, self()}, "
        # Asked only while there is a link: asking makes one.
        "Watch = fun(Twin, none) -> case lists:member(Peer, nodes()) of true -> monitor(process, Twin); "
        "false -> none end; (_, Ref) -> Ref end, "
        "Go = fun Go(Twin, Was) -> Ref = Watch(Twin, Was), "
        f"Read(Peer, true), timer:sleep({_OPEN_MS}), Read(Peer, false), "
        "receive {'DOWN', Ref, process, _, noconnection} -> Go(Twin, none); "
        "{'DOWN', Ref, process, _, _} -> Read(Peer, true) "
        f"after {delay_ms} -> Go(Twin, Ref) end end, "
        f"receive {{twin, Twin}} -> Go(Twin, none) after 4 * {_PEER_ANSWERS_MS} -> ok end end end, "
        "Await = fun(Pid, Ms) -> receive {held, Pid} -> held after Ms -> late end end, "
        "Slow = fun(Peer) -> Before = Delay(Peer), End(Name(Peer)), Read(Peer, true), "
        f"Patience = Before + 2 * {_PEER_ANSWERS_MS}, "
        "There = spawn(Peer, Hold(node())), "
        "case Await(There, Patience) of late -> late; held -> "
        "Here = spawn(Hold(Peer)), held = Await(Here, Patience), "
        "There ! {twin, Here}, Here ! {twin, There}, held end end, "
        "case lists:member(late, [Slow(Peer) || Peer <- Peers]) of true -> late; false -> Peers end."
    )


def mend_expression(peers: Iterable[str], every_peer: Iterable[str] = (), *, forget: bool = False) -> str:
    """What a node evaluates to open its links to `peers` again, and to tell what then stands at it and `every_peer`.

    It does no harm to links that are open. With `forget` it removes the note: no other link is cut or slow.
    """
    forgetting = "file:delete(Note), " if forget else ""
    return (
        f"{_WORDS}Peers = {_atoms(peers)}, "
        "[erlang:set_cookie(Peer, erlang:get_cookie()) || Peer <- Peers], "
        f"[begin End(Name(Peer)), Read(Peer, true) end || Peer <- Peers], {forgetting}{_telling(every_peer)}"
    )


def active_expression(every_peer: Iterable[str]) -> str:
    """What a node evaluates to tell which of its links are cut or slow, and which alarms it has."""
    return _WORDS + _telling(every_peer)


def read_active(said: str) -> tuple[Told, ...]:
    """What a node said that was asked what stands."""
    found = _KNOWN.finditer("".join(said.split()))
    return tuple(Told(m[1], m[2], None if m[3] is None else int(m[3])) for m in found)


def _telling(peers: Iterable[str]) -> str:
    return (
        f"Every = {_atoms(peers)}, "
        # In a node that runs RabbitMQ may be stopped, or about to stop, and answer nothing.
        f"Alarms = try rabbit_alarm:get_alarms({_PEER_ANSWERS_MS}) catch _:_ -> [] end, "
        "[{alarm, What} || {{resource_limit, What, Node}, _} <- Alarms, Node =:= node()] ++ "
        "[{cut, Peer} || Peer <- Every, erlang:get_cookie(Peer) =/= erlang:get_cookie()] ++ "
        "[{slow, Peer, Delay(Peer)} || Peer <- Every, is_pid(whereis(Name(Peer)))]."
    )


def _atoms(names: Iterable[str]) -> str:
    return "[" + ", ".join(f"'{name}'" for name in names) + "]"
