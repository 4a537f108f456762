"""Whose turn it is: order within a session, how many executions of an agent work at once, how often they start.

There are no locks. A claim is atomic, and from then on everybody sees it; so an execution first claims, then looks who
else works (`line.Line.obstacle`), and steps back if it is not its turn (`gate.enter`): before the agent's function is
called, it pauses under the key `agents.turn`, which gives the lease and the slot back.

**Never more than N work at once.** Suppose that N + 1 executions passed the gate and work at one moment, each with a
live lease. Each has claimed before it looked. The last of them to look, looked when all the others had claimed, and as
they still work now, their leases lived and their states said so all the while it looked. It saw N others and stepped
back: a contradiction. The same holds for a session, with N = 1, whose older executions may not even be paused. A
crashed holder counts until its lease runs out, when its own recovery begins; one that is frozen for longer stops at its
next write. Between the two moments its successor may work beside it, as after any death.

**Somebody always goes on.** Several that claim at one moment may all see each other and step back. Whoever gives up
its place, by stepping back, a pause or an end, looks afterwards how many work, and wakes as many of those who wait, the
oldest first, as there are free places (`line.Line.pass_on`). The last of those who stepped back finds all the others
paused, so the oldest is woken. A wake that comes while its receiver is on the way to pause is found in the mailbox by
that very write, and rings at once. A wake is a signal whose id is made of the pause, so that several enders wake one
execution once, and never all of a long line. What no argument covers (a worker that dies between its last write and the
wake, an execution that is deleted) is caught by a timer: each looks by itself after a minute, then after two, up to a
quarter of an hour, with jitter.

Relatives do not wait for each other, because a parent waits for its children already: a child takes the place of the
oldest one that it descends from in the session.

The order of a session is strict. That of those who wait for a free place is by creation, with one exception: a newcomer
that claims in the moment between an end and the claim of the one who was woken may be first. The latter stays in front.
"""
