"""
Limits that several houses share, in Redis or Valkey. See `ports.treasury.Treasury`.

One script does one statement, so that nothing comes between reading and
writing. What came from anywhere is an argument of the script and never part of
it. The rules are those of `testing.memory_treasury`, where they can be read
without Lua.

An entry lives as long as it can matter: ten minutes after the last word about a
rate or about slots, two days beyond the end of a budget's period.
"""

import time
from collections.abc import Callable, Iterator

from pilothouse.domain.allotment import Allotment, Holding, Statement, TreasuryAnswer
from pilothouse.domain.limits import budget_scope
from pilothouse.kit.ids import new_id
from pilothouse.kit.resp import RespClient, RespError

SILENT_S = 60.0
"""A house that was silent for so long holds no rates and no slots; its budgets stay its own."""
GRACE_S = 5.0
"""So long a server that began anew grants nothing: all houses tell twice a second."""
KEPT_S = 600
BUDGET_KEPT_S = 2 * 86_400
MOST = 2**53 - 1
"""Lua's numbers are exact up to here: nine billion dollars."""
_NAME = b"pilothouse:ledger:"

_SCRIPT = b"""
local clock = redis.call('TIME')
local now = ARGV[1] ~= '' and tonumber(ARGV[1]) or tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local house, life, number, said_epoch = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local silent, grace, is_whole = tonumber(ARGV[7]), tonumber(ARGV[8]), ARGV[9] == '1'
local all = KEYS[1]
local function text(value) return string.format('%.0f', value) end
local function moment(value) return string.format('%.6f', value) end

local server = redis.pcall('INFO', 'server')
local run = type(server) == 'string' and string.match(server, 'run_id:(%x+)') or ''
if redis.call('HGET', all, 'run') ~= run or now < tonumber(redis.call('HGET', all, 'began')) then
  redis.call('DEL', all)
  redis.call('HSET', all, 'run', run, 'epoch', ARGV[6], 'began', moment(now))
end
local entries = redis.call('HGETALL', all)
local of = {}
for i = 1, #entries, 2 do of[entries[i]] = entries[i + 1] end
local epoch, began = of.epoch, tonumber(of.began)
local known_life = of['life:' .. house]
local is_introduction = said_epoch ~= epoch or known_life ~= life
local is_overtaken = known_life and said_epoch ~= ''
if known_life == life then is_overtaken = number <= tonumber(of['number:' .. house]) end
if not is_overtaken then
  of['seen:' .. house] = moment(now)
  if not is_whole then of['vague:' .. house] = moment(now)
  elseif said_epoch == epoch then of['told:' .. house] = epoch end
  redis.call('HSET', all, 'life:' .. house, life, 'number:' .. house, text(number),
    'seen:' .. house, of['seen:' .. house], 'told:' .. house, of['told:' .. house] or '',
    'vague:' .. house, of['vague:' .. house] or '0')
end
local houses, is_new = 0, now - began < grace
for name, value in pairs(of) do
  local other = string.match(name, '^seen:(.*)$')
  if other then
    local silence = now - tonumber(value)
    if silence < silent then
      houses = houses + 1
      if of['told:' .. other] ~= epoch then is_new = true end
    elseif silence > 86400 then
      redis.call('HDEL', all, 'seen:' .. other, 'life:' .. other, 'number:' .. other,
        'told:' .. other, 'vague:' .. other)
    end
  end
end
local out = {epoch, text(houses), (is_new or is_overtaken) and '1' or '0', is_overtaken and '0' or '1'}
if is_overtaken then return table.concat(out, ' ') end

for k = 2, #KEYS do
  local key, at = KEYS[k], 10 + (k - 2) * 6
  local kind, limit, held = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local returned, need, kept = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4]), ARGV[at + 5]
  local is_rate = kind == 'rpm' or kind == 'tpm'
  local others, mine, my_returned, level, level_at = 0, 0, nil, nil, nil
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    local name, value = fields[i], fields[i + 1]
    if name == 'level' then
      level = tonumber(value)
    elseif name == 'at' then
      level_at = tonumber(value)
    else
      local units, back, said_at, its_life = string.match(value, '^(%d+) (%d+) ([%d.]+) (.*)$')
      local vague_at = tonumber(of['vague:' .. string.sub(name, 7)] or '0')
      if kind ~= 'budget' and now - math.max(tonumber(said_at), vague_at) > silent then
        redis.call('HDEL', key, name)
      elseif name == 'house:' .. house then
        mine = tonumber(units)
        if its_life == life then my_returned = tonumber(back) end
      else
        others = others + tonumber(units)
      end
    end
  end
  local room
  if is_rate then
    if level == nil or level_at < began then level, level_at = 0, began end
    local most = limit - others - mine
    local since = math.max(0, now - level_at)
    if level < most then level = math.min(most, level + since * limit / 60) end
    if not is_introduction and my_returned then level = level + math.max(0, returned - my_returned) end
    level = math.min(level, math.max(0, limit - others - held))
    room = math.floor(level + 0.000000001)
  else
    room = math.max(0, limit - others - held)
  end
  if need > 0 and not is_introduction and need <= room and not is_new then
    local share = houses <= 1 and room or math.floor(room / (2 * houses))
    local given = math.min(room, math.max(need, share))
    held, room = held + given, room - given
    if is_rate then level = level - given end
  end
  local mine_now = table.concat({text(held), text(returned), moment(now), life}, ' ')
  redis.call('HSET', key, 'house:' .. house, mine_now)
  if is_rate then
    redis.call('HSET', key, 'level', string.format('%.9f', level), 'at', moment(now))
  end
  redis.call('EXPIRE', key, kept)
  out[#out + 1] = text(held) .. ':' .. text(room)
end
return table.concat(out, ' ')
"""


class RedisTreasury:
    """
    Args:
        client: Its timeout bounds each exchange. Closed with this.
        grace_s, silent_s: See the module's numbers.
        now: For tests that play hours. None is the server's own clock, the same for all houses.
    """

    def __init__(
        self,
        client: RespClient,
        *,
        grace_s: float = GRACE_S,
        silent_s: float = SILENT_S,
        now: Callable[[], float] | None = None,
    ) -> None:
        self._client = client
        self._bounds = (b"%.3f" % silent_s, b"%.3f" % grace_s)
        self._now = now

    async def exchange(self, statement: Statement) -> TreasuryAnswer | None:
        keys = [_NAME + b"houses", *[_NAME + one.id.encode() for one in statement.holdings]]
        try:
            reply = await self._client.call(
                b"EVAL", _SCRIPT, b"%d" % len(keys), *keys, *self._arguments(statement)
            )
        except RespError:
            return None
        return _read(reply, statement.holdings)

    async def aclose(self) -> None:
        await self._client.aclose()

    def _arguments(self, statement: Statement) -> Iterator[bytes]:
        yield b"" if self._now is None else b"%.6f" % self._now()
        yield statement.house.encode()
        yield statement.life.encode()
        yield b"%d" % statement.number
        yield statement.epoch.encode()
        yield new_id("").encode()
        yield from self._bounds
        yield b"%d" % statement.is_whole
        for one in statement.holdings:
            yield one.kind.encode()
            for number in (one.limit, one.held, one.returned, one.need, _kept_s(one)):
                yield b"%d" % min(number, MOST)


def _kept_s(holding: Holding) -> int:
    scope = budget_scope(holding.id)
    if scope is None:
        return KEPT_S
    return BUDGET_KEPT_S + max(0, int(scope.until - time.time()))


def _read(reply: object, holdings: tuple[Holding, ...]) -> TreasuryAnswer | None:
    """None for what no script of ours says."""
    if not isinstance(reply, bytes):
        return None
    try:
        epoch, houses, is_new, is_heard, *told = reply.decode().split(" ")
        pairs = [tuple(map(int, one.split(":"))) for one in told]
        return TreasuryAnswer(
            epoch=epoch,
            houses=int(houses),
            is_new=is_new == "1",
            is_heard=is_heard == "1",
            allotments=tuple(
                [Allotment(one.id, held, left) for one, (held, left) in zip(holdings, pairs, strict=False)]
            ),
        )
    except ValueError:  # an answer that cannot be read is no answer
        return None
