"""Rates on PostgreSQL: one statement makes the bucket's row or changes it, whoever else does so."""

from agent_statestore.clock import Clock
from agent_statestore.records import Turn
from agent_statestore.rules.rates import Asked, turn_of
from agent_statestore.sql.database import Database
from agent_statestore.sql.postgresql.repeating import Repeating


class PostgreSQLRates(Repeating):
    """The primitive on rates; see `StorePrimitives.take_rate`. It decides as `rules.rates.Asked.answer` does."""

    def __init__(self, database: Database, clock: Clock | None) -> None:
        super().__init__(database, clock)
        # A new row's `turn_us` is now. Afterwards it is the last answer, and 0 for an answer that promises nothing.
        kept = "GREATEST(r.next_us, r.end_us) - EXCLUDED.turn_us <= CAST(:farthest AS bigint)"
        line = (
            f"SELECT EXCLUDED.turn_us AS now_us, CASE WHEN {kept} THEN r.next_us ELSE 0 END AS next_us, "
            f"CASE WHEN {kept} THEN r.end_us ELSE 0 END AS end_us"
        )
        asked = (
            "SELECT line.*, GREATEST(now_us, next_us) AS soonest_us, "
            f"GREATEST(now_us, next_us, end_us) AS promised_us FROM ({line}) AS line"
        )
        taken = (
            "SELECT asked.*, soonest_us - now_us <= CAST(:within AS bigint) "
            f"AND (CAST(:promised AS boolean) OR end_us <= soonest_us) AS is_taken FROM ({asked}) AS asked"
        )
        answered = (
            "SELECT taken.*, NOT is_taken AND promised_us - now_us <= CAST(:longest AS bigint) AS is_promised "
            f"FROM ({taken}) AS taken"
        )
        interval = "CAST(:interval AS bigint)"
        self._take_rate = (
            f"WITH clock AS MATERIALIZED (SELECT {database.now} AS now_us) "
            f"INSERT INTO {self._tables.rates} AS r (bucket, next_us, end_us, turn_us) "
            f"SELECT :bucket, now_us + {interval}, 0, now_us FROM clock "
            "ON CONFLICT (bucket) DO UPDATE SET (next_us, end_us, turn_us) = ("
            f"SELECT CASE WHEN is_taken THEN soonest_us + {interval} ELSE next_us END, "
            f"CASE WHEN is_promised THEN promised_us + {interval} ELSE end_us END, "
            "CASE WHEN is_taken THEN soonest_us WHEN is_promised THEN promised_us ELSE 0 END "
            f"FROM ({answered}) AS answered) "
            "RETURNING r.next_us, r.turn_us, (SELECT now_us FROM clock)"
        )

    def take_rate(self, bucket: str, question: Asked) -> Turn:
        params = {
            "bucket": bucket,
            "interval": question.interval_us,
            "longest": question.longest_us,
            "farthest": question.farthest_us,
            "within": question.within_us,
            "promised": question.promised,
            "now": self.now_us(),
        }
        ((next_us, turn_us, now_us),) = self._database.run(self._take_rate, params)
        if turn_us == 0:
            return turn_of(question.longest_us, "none")
        # The next turn lies behind this one only if this one was taken.
        return turn_of(turn_us - now_us, "taken" if next_us > turn_us else "promised")
