"""Scripts as bash would run them: held against bash itself where it is there."""

from __future__ import annotations

import shlex
import shutil
import subprocess

import pytest

from planner.interop.shell import commands
from planner.spec import SpecError

SCRIPTS = {
    "variables": 'A=1 B="two words"\nrun $A "$B" ${C:-three} "${D:-four five}"\n',
    "continuations": "run --a \\\n  --b 'x y' \\\n  --c\n",
    "arrays": 'L=(--a "b c")\nL+=(d)\nrun "${L[@]}" ${#L[@]} ${L[1]}\n',
    "for": "for i in 1 2 3; do run --port $((8000 + i)) & done\nwait\n",
    "seq": "for i in $(seq 0 2); do run $i; done\n",
    "braces": "for i in {0..2}; do run $i; done\n",
    "counted": "for ((i=0; i<3; i++)); do run $((i*2)); done\n",
    "functions": 'f() { run "$1" $2 "$@"; }\nf a "b c"\nfunction g { run g$1; }\ng 1\n',
    "shells": 'bash -c \'run "$0" "$1"\' name one\nbash -c "run \'quoted text\' \\$HOME_IS_UNSET"\n',
    "redirects": "run a > /dev/null 2>&1 | cat\nrun b 2>/dev/null && run c; run d &\nwait\n",
    "comments": "# run no\nrun a # b\nrun 'c # d' e#f\n",
    "heredoc": "cat > /dev/null <<EOF\nrun in a document\nEOF\nrun after\n",
    "plus": 'A=x\nA+=" y"\nrun $A "$A"\n',
    "unset": 'run "$@" "${NOTHING[@]}" end\n',
    "nested": "for r in p d; do for i in 0 1; do run $r-$i; done; done\n",
    "if": 'A=${A:-0}\nif [ "$A" = 1 ]; then run one; elif [[ $A == 0* ]]; then run zero; else run other; fi\n',
    "if not": 'if ! [ -z "$NOTHING" ]; then run no; fi\nif [ ! -n "$NOTHING" ]; then run yes; fi\n',
    "if numbers": "N=4\nif [[ $N -ge 4 ]]; then B=8; else B=2; fi\nif test $N -lt 4; then B=1; fi\nrun $B\n",
    "if arrays": 'L=(-a)\nif [[ "${Q:-}" == 1 ]]; then L+=(-q fp8); fi\nrun "${L[@]}"\n',
    "if nested": "A=x\nif true; then if [ $A != x ]; then run no; else run yes; fi; fi\nif false; then run no; fi\n",
    "short if": 'A=1\n[ "$A" = 1 ] && run a\n[[ $A == 2 ]] && B=2 || B=3\n[ "$B" = 3 ] || run no\nrun $B\n',
    "short ifs": "A=1\n[ $A = 1 ] && [ $A = 2 ] && run no\n[ $A = 1 ] &&\n  [ $A != 2 ] && run yes\n",
    "case": 'M=${M:-pd}\ncase "$M" in\n  agg) run a;;\n  p*|d) run pd ;;\n  *) run other\nesac\n',
    "arguments": 'T=1\nwhile [[ $# -gt 0 ]]; do case $1 in --tp) T="$2"; shift 2;; esac; done\nrun $T\n',
    "if skipped": 'if [ "${Q:-none}" != none ]; then E="-q $Q"; L+=(x); fi\nrun a $E "${L[@]}" b\n',
    "options": 'T=1\nwhile getopts "t:" o; do case $o in t) T=$OPTARG;; esac; done\nrun $T\n',
    "group": "{ run a; run b; }\n( run c )\n",
}


def ours(text: str) -> list[list[str]]:
    return [list(one.words[1:]) for one in commands(text, "x") if one.words[0] == "run"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_as_bash_does(name: str) -> None:
    if shutil.which("bash") is None:
        pytest.skip("there is no bash to compare with")
    text = SCRIPTS[name]
    # one write a line: commands in the background print at the same time
    head = 'run() { local line; printf -v line "%q " "$@"; echo "$line" >&9; }\nexport -f run\n'
    told = subprocess.run(
        ["bash", "-c", "exec 9>&1\n" + head + text], capture_output=True, text=True, timeout=20, check=False
    )
    theirs = [shlex.split(line) for line in told.stdout.splitlines()]
    mine = ours(text)
    if name == "shells":  # $0 and unset variables stay as they are written
        theirs[0][0], mine[0][0] = "name", "name"
        mine[1] = mine[1][:1]
    assert sorted(mine) == sorted(theirs)


def test_what_is_not_known_stays_as_it_is_written() -> None:
    assert ours("run $MODEL ${TP} $(nproc)\n") == [["$MODEL", "${TP}", "$(nproc)"]]
    (only,) = commands("for i in $GPUS; do run $i; done\n", "x")
    assert only.unbounded == "for i in $GPUS"


@pytest.mark.parametrize(
    ("text", "doubts"),
    [
        ("A=1\nif [ -f big ]; then A=2; fi\nB=$A\nrun $B\n", ("if [ -f big ]",)),
        ('case "$1" in a) L+=(x);; esac\nrun "${L[@]}"\n', ("case $1",)),
        ("if grep -q x y; then run a; fi\n", ("if grep -q x y",)),
        ('if [ -n "$BIG" ]; then A=8; else A=1; fi\nrun $A\n', ("if [ -n $BIG ]",)),
        ("if a || b; then run a; fi\n", ("if ...",)),
        ("[ -f big ] && A=2\nA=3\nrun $A\n", ()),
        ("f() { run $1; }\n[ -f big ] && A=2\nf $A\n", ("if [ -f big ]",)),
    ],
)
def test_what_depends_on_an_unknown_condition_says_so(text: str, doubts: tuple[str, ...]) -> None:
    (one,) = commands(text, "x")
    assert one.doubts == doubts


def test_placeholders_are_words_and_texts_nearby_are_kept() -> None:
    (one,) = commands("# decode\nrun <MODEL> > decode.log\n", "x")
    assert one.words == ("run", "<MODEL>")
    assert one.hints[0] == "decode.log"
    assert "decode" in one.hints


@pytest.mark.parametrize("text", ["run 'a\n", 'run "a\n', "run $(a\n", "run ${a\n"])
def test_faults_are_one_line(text: str) -> None:
    with pytest.raises(SpecError) as caught:
        commands(text, "x")
    assert "\n" not in str(caught.value)


def test_endless_recursion_ends() -> None:
    with pytest.raises(SpecError):
        commands("f() { f; f; }\nf\n", "x")
