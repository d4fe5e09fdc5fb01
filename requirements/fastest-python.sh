#!/bin/sh
# Print the fastest Python here that Pilothouse can use: 3.11 or newer.
#
# Measured, not guessed: builds of one version differ by a factor of two (a distribution's is
# optimised with a profile, one that pyenv compiled is not), and the gateway by as much.
# Every candidate runs the same few milliseconds of calls, attributes, dicts and bytes, five times.
# An interpreter is preferred to those before it only when it is faster by a tenth.

best_us=''
for python in python3 python3.11 python3.12 python3.13 python3.14 \
	/usr/bin/python3 /usr/bin/python3.11 /usr/bin/python3.12 /usr/bin/python3.13 /usr/bin/python3.14 \
	/opt/homebrew/bin/python3 /usr/local/bin/python3; do
	path=$(command -v "$python" 2>/dev/null) || continue
	us=$("$path" -I -c "
import sys, time
if sys.version_info < (3, 11): sys.exit(1)
class Point:
    def __init__(self, x): self.x = x
    def moved(self, by): return self.x + by
def work():
    found = {}
    for i in range(5000):
        found[i & 63] = Point(i).moved(1)
        (b'%d %s' % (i, b'x')).split(b' ')
best = 1e9
for _ in range(5):
    began = time.perf_counter(); work(); best = min(best, time.perf_counter() - began)
print(int(best * 1e6))
" 2>/dev/null) || continue
	if [ -z "$best_us" ] || [ $((us * 10)) -lt $((best_us * 9)) ]; then
		best_us=$us
		best=$path
	fi
done
[ -n "$best" ] && echo "$best"
