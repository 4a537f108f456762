"""The rights that a store needs, for a separate user on the server: these commands, the store's keys and channels.

    ACL SETUSER agents on >password resetkeys ~agent:state:* resetchannels &agent:state:* -@all +eval +evalsha ...

`acl_rules` gives the whole line for a prefix. Sentinel has separate users, who need `SENTINEL_COMMANDS`.
"""

from typing import Final

# Some of these are needed in special cases only: SELECT for a database other than 0; WAIT, SET and ROLE for `replicas=`
# and Sentinel; CLUSTER and ASKING on a cluster; INFO for the durability warning; the subscriptions for waiting on
# changes. The driver also tells the server its name (CLIENT SETINFO), and goes on if that is denied.
COMMANDS: Final = (
    *("eval", "evalsha", "time"),
    *("del", "exists", "hdel", "hexists", "hget", "hgetall", "hincrby", "hmget", "hscan", "hset", "llen"),
    *(
        "lrange",
        "lset",
        "ltrim",
        "persist",
        "pexpire",
        "pexpireat",
        "pttl",
        "rpush",
        "set",
        "zadd",
        "zcard",
        "zcount",
        "zrange",
        "zrangebylex",
        "zrangebyscore",
        "zrem",
    ),
    *("unlink", "zrevrangebylex", "zscore"),
    *("publish", "spublish", "subscribe", "ssubscribe", "unsubscribe", "sunsubscribe"),
    *("ping", "info", "select", "client|setname", "wait", "role", "cluster|slots", "asking"),
)
SENTINEL_COMMANDS: Final = ("sentinel|master", "ping", "client|setname")

# Vector sets came with Redis 8. Without these rights, processes compare vectors.
VECTOR_COMMANDS: Final = ("vadd", "vrem", "vsim")
# Redis 6 has no sharded channels.
_SINCE_7: Final = frozenset({"spublish", "ssubscribe", "sunsubscribe"})


def acl_rules(key_prefix: str = "agent:state:", *, major: int = 7) -> tuple[str, ...]:
    """Return exactly the rights that a store with this prefix needs, as the last words of ACL SETUSER.

    `major` is the server's version: 6 knows fewer commands than 7, and 8 knows those of vector sets.
    """
    pattern = "".join(f"\\{letter}" if letter in "*?[]\\" else letter for letter in key_prefix)
    known = (*COMMANDS, *VECTOR_COMMANDS) if major >= 8 else COMMANDS
    commands = (f"+{command}" for command in known if major >= 7 or command not in _SINCE_7)
    return ("resetkeys", f"~{pattern}*", "resetchannels", f"&{pattern}*", "-@all", *commands)
