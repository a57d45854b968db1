"""The conversation at a terminal: editing, history, several lines, pastes, Ctrl-C, commands, colours."""

import json
import os
import re
import time
import unittest

import tessera
from terminal import Terminal

CTRL_A, CTRL_C, CTRL_D, CTRL_K = "\x01", "\x03", "\x04", "\x0b"
LEFT, UP, BACKSPACE, HOME, END = "\x1b[D", "\x1b[A", "\x7f", "\x1b[H", "\x1b[F"
COLOUR = re.compile("\x1b\\[[0-9;]*m")


def plain(text):
    """Terminal output without escape sequences and carriage returns."""
    return re.sub("\x1b\\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "")


class ChatTest(unittest.TestCase):
    def setUp(self):
        self.state = tessera.folder() / f"state-{self.id()}"
        self.saved = tessera.folder() / f"chat-{self.id()}.json"
        self.env = tessera.environment(XDG_STATE_HOME=str(self.state), NO_COLOR="1")

    def chat(self, *arguments, env=None):
        return Terminal("--temp", "0", "--max-tokens", "24", "--threads", "1", *arguments, env=env or self.env)

    def messages(self, terminal):
        """What the chat holds, by its own /save."""
        self.saved.unlink(missing_ok=True)
        terminal.enter(f"/save {self.saved}")
        terminal.wait_for("saved \\d+ messages")
        terminal.wait_prompt()
        return [(entry["role"], entry["content"]) for entry in json.loads(self.saved.read_text())["messages"]]

    def asked(self, terminal):
        return [content for role, content in self.messages(terminal) if role == "user"]

    def leave(self, terminal):
        terminal.enter("/bye")
        self.assertEqual(terminal.exit_code(), 0)

    def test_every_way_to_leave(self):
        for word in ("/bye", "/exit", "/quit", "exit", "quit"):
            with self.subTest(word=word), self.chat() as terminal:
                terminal.wait_prompt()
                terminal.enter(word)
                self.assertEqual(terminal.exit_code(), 0)

    def test_a_tilde_stands_for_the_home_folder(self):
        with self.chat() as terminal:
            terminal.wait_prompt()
            terminal.enter("/?")
            terminal.wait_for("/help +this list")
            terminal.wait_prompt()
            terminal.enter("/save ~/tilde.json")
            terminal.wait_for("saved 0 messages")
            self.assertEqual(json.loads((tessera.folder() / "tilde.json").read_text())["messages"], [])
            terminal.wait_prompt()
            terminal.enter("/load ~/tilde.json")
            terminal.wait_prompt()
            self.leave(terminal)

    def test_an_answer_is_that_of_a_single_run(self):
        alone = tessera.run("-p", tessera.PROMPT, "--temp", "0", "--max-tokens", "24").stdout.strip()
        with self.chat() as terminal:
            terminal.wait_for("memory: weights .*? available")
            terminal.wait_prompt()
            terminal.enter(tessera.PROMPT)
            terminal.wait_for(re.escape(alone))
            terminal.wait_for("prompt \\d+ tokens.*? · reply \\d+ tokens.*? · first token \\d+ ms · KV \\d+/\\d+ tokens")
            terminal.wait_prompt()
            self.assertEqual(self.messages(terminal), [("user", tessera.PROMPT), ("assistant", alone)])
            self.leave(terminal)

    def test_no_stats_leaves_the_figures_out(self):
        with self.chat("--no-stats") as terminal:
            terminal.wait_prompt()
            terminal.enter(tessera.PROMPT)
            self.assertNotIn("tokens/s", terminal.wait_prompt())
            self.leave(terminal)

    def test_line_editing(self):
        with self.chat() as terminal:
            terminal.wait_prompt()
            terminal.type("book a tabel")
            terminal.type(BACKSPACE * 2 + "le")
            terminal.type(CTRL_A + "I want to ")
            terminal.type(END + "XY" + LEFT * 2 + CTRL_K + " for two" + HOME + END)
            terminal.enter(" in Wien, gr\u00fc\u00df dich")
            terminal.wait_prompt()
            self.assertEqual(self.asked(terminal), ["I want to book a table for two in Wien, gr\u00fc\u00df dich"])
            self.leave(terminal)

    def test_keys_without_a_binding_leave_nothing_behind(self):
        keys = {"page up": "\x1b[5~", "F5": "\x1b[15~", "F1": "\x1bOP", "F1 of the console": "\x1b[[A",
                "shift and left": "\x1b[1;2D", "ctrl and delete": "\x1b[3;5~", "home of rxvt": "\x1b[7~",
                "alt and enter": "\x1b\r", "alt and left": "\x1b\x1b[D", "kitty": "\x1b[57358u\x1b[97;5:3u",
                "mouse": "\x1b[<0;3;4M\x1b[M !!", "reply": "\x1b]11;rgb:00/00/00\x1b\\\x1b[?1;2c\x1bP1$r0m\x1b\\",
                "end of a paste": "\x1b[201~", "literal key": "\x16\x1b[D", "libedit's commands": "\x1bx", "alt and null": "\x1b\0",
                "invalid": b"\xff\xc3\xff\xbf\xe2\x82", "colours in a paste": "\x1b[200~\x1b[31m\x1b(B\x1b]0;x\x07\x1b[201~"}
        with self.chat("--max-tokens", "1") as terminal:
            terminal.wait_prompt()
            for name, sequence in keys.items():
                with self.subTest(key=name):
                    terminal.enter("/clear")
                    terminal.wait_prompt()
                    terminal.type("hello")
                    for byte in sequence if isinstance(sequence, bytes) else sequence.encode():
                        terminal.type(bytes([byte]))
                        time.sleep(0.002)
                    terminal.enter(" there")
                    terminal.wait_prompt()
                    self.assertEqual(self.asked(terminal), ["hello there"])
            # A key that ends a search through the history does what it does elsewhere.
            terminal.type("hell there\x12no such message" + HOME + "\x1b[C" * 4)
            terminal.enter("o")
            terminal.wait_prompt()
            self.assertEqual(self.asked(terminal)[-1], "hello there")
            # Keys as kitty's protocol sends them.
            terminal.type("\x1b[104uello\x1b[97;5uOh \x1b[49:33;2u")
            terminal.enter()
            terminal.wait_prompt()
            self.assertEqual(self.asked(terminal)[-1], "Oh !hello")
            terminal.type("nothing\x1b[99;5u")
            terminal.wait_prompt()
            self.leave(terminal)

    def test_esc_alone_changes_nothing(self):
        with self.chat("--max-tokens", "1") as terminal:
            terminal.wait_prompt()
            terminal.type("one \x1b")
            time.sleep(0.3)
            terminal.type("dbu[x]\x1b")
            time.sleep(0.3)
            terminal.enter("O two")
            terminal.wait_prompt()
            self.assertEqual(self.asked(terminal), ["one dbu[x]O two"])
            self.leave(terminal)

    def test_the_users_own_bindings_hold(self):
        home = tessera.folder() / "bindings"
        home.mkdir()
        (home / ".editrc").write_text('bind "\\e[5~" ed-move-to-beg\nbind -s "\\e[15~" "hello"\n')
        # libedit forgets the memory of a bound text, which a sanitized build reports.
        leaks = {"ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"}
        with self.chat("--max-tokens", "1", env={**self.env, **leaks, "HOME": str(home)}) as terminal:
            terminal.wait_prompt()
            terminal.enter(" there\x1b[5~\x1b[6~\x1b[15~")
            terminal.wait_prompt()
            self.assertEqual(self.asked(terminal), ["hello there"])
            self.leave(terminal)
        (home / ".editrc").write_text("bind -v\n")
        with self.chat("--max-tokens", "1", env={**self.env, "HOME": str(home)}) as terminal:
            terminal.wait_prompt()
            for pause in (0.5, 0):
                terminal.type("hello thereX\x1b")
                time.sleep(pause)
                terminal.enter("x")
                terminal.wait_prompt()
                self.assertEqual(self.asked(terminal)[-1], "hello there")
            self.leave(terminal)

    def test_history_lasts(self):
        with self.chat() as terminal:
            terminal.wait_prompt()
            terminal.enter("I need a doctor.")
            terminal.wait_prompt()
            terminal.enter('"""two')
            terminal.enter('lines"""')
            terminal.wait_prompt()
            self.leave(terminal)
        history = self.state / "tessera/history"
        self.assertEqual(history.stat().st_mode & 0o777, 0o600)
        with self.chat() as terminal:
            terminal.wait_prompt()
            terminal.type(UP + UP)  # over /bye to the message of two lines
            terminal.enter()
            terminal.wait_prompt()
            terminal.type(UP + UP + UP + UP)
            terminal.enter()
            terminal.wait_prompt()
            self.assertEqual(self.asked(terminal), ["two\nlines", "I need a doctor."])
            self.leave(terminal)

    def test_several_lines(self):
        with self.chat() as terminal:
            terminal.wait_prompt()
            terminal.enter("first\\")
            terminal.enter("second")
            terminal.wait_prompt()
            terminal.enter('"""')
            terminal.enter("/undo is not a command here")
            terminal.enter("third")
            terminal.enter('"""')
            terminal.wait_prompt()
            terminal.enter('"""fourth"""')
            terminal.wait_prompt()
            self.assertEqual(self.asked(terminal),
                             ["first\nsecond", "/undo is not a command here\nthird", "fourth"])
            self.leave(terminal)

    def test_a_paste_is_sent_whole_and_only_by_enter(self):
        with self.chat() as terminal:
            terminal.wait_prompt()
            terminal.type("before \x1b[200~one\r\ntwo\rthree\n")
            self.assertNotIn("reply", terminal.quiet(1.5))  # half a paste: nothing may happen
            terminal.type("fo\tur\x1b[201~")
            self.assertNotIn("reply", terminal.quiet(1.5))
            terminal.enter(" after")
            terminal.wait_prompt()
            self.assertEqual(self.asked(terminal), ["before one\ntwo\nthree\nfo\tur after"])
            # A pasted slash is text as soon as the paste has several lines.
            terminal.type("\x1b[200~/bye\nis what I say\x1b[201~")
            terminal.enter()
            terminal.wait_prompt()
            self.assertEqual(self.asked(terminal)[-1], "/bye\nis what I say")
            self.leave(terminal)

    def test_ctrl_c_at_the_prompt(self):
        with self.chat() as terminal:
            terminal.wait_prompt()
            terminal.type("not this")
            terminal.quiet(0.5)
            terminal.type(CTRL_C)
            terminal.wait_prompt()
            terminal.enter("but this")
            terminal.wait_prompt()
            self.assertEqual(self.asked(terminal), ["but this"])
            terminal.type(CTRL_C)
            terminal.wait_for("Ctrl-C again leaves")
            terminal.wait_prompt()
            terminal.enter("/stats")  # anything in between: the next one is a first one again
            terminal.wait_prompt()
            terminal.type(CTRL_C)
            terminal.wait_prompt()
            terminal.type(CTRL_C)
            self.assertEqual(terminal.exit_code(), 130)

    def test_ctrl_c_drops_a_message_of_several_lines(self):
        with self.chat() as terminal:
            terminal.wait_prompt()
            terminal.enter('"""begun')
            terminal.wait_for("… ")
            terminal.type(CTRL_C)
            terminal.wait_prompt()
            terminal.enter("whole")
            terminal.wait_prompt()
            self.assertEqual(self.asked(terminal), ["whole"])
            self.leave(terminal)

    def test_ctrl_c_stops_a_reply_and_a_second_one_leaves(self):
        # The reference backend is slow enough to be stopped in the middle.
        arguments = ("--temp", "0", "--backend", "reference", "--ignore-eos")
        with Terminal(*arguments, env=self.env) as terminal:
            terminal.wait_prompt()
            terminal.enter("Tell me a story.")
            terminal.wait_for("\\w+ \\w+ \\w+ ")
            terminal.wait_for("\\w+ \\w+ ")
            terminal.type(CTRL_C)
            text = terminal.wait_prompt()
            self.assertIn("reply", text)
            kept = self.messages(terminal)
            self.assertEqual([role for role, _ in kept], ["user", "assistant"])
            self.assertTrue(kept[1][1])
            terminal.enter("And then?")  # the chat goes on
            terminal.wait_for("\\w+ \\w+ ")
            terminal.type(CTRL_C)
            terminal.wait_prompt()
            terminal.type(CTRL_C)
            self.assertEqual(terminal.exit_code(), 130)

    def test_ctrl_d_leaves(self):
        with self.chat() as terminal:
            terminal.wait_prompt()
            terminal.type(CTRL_D)
            self.assertEqual(terminal.exit_code(), 0)

    def test_undo_and_regen_equal_a_fresh_run(self):
        with self.chat() as terminal:
            terminal.wait_prompt()
            terminal.enter(tessera.PROMPT)
            terminal.wait_prompt()
            terminal.enter("At 7 pm please.")
            terminal.wait_prompt()
            fresh = self.messages(terminal)
            terminal.enter("/regen")
            terminal.wait_prompt()
            self.assertEqual(self.messages(terminal), fresh)
            terminal.enter("/undo")
            terminal.wait_prompt()
            terminal.enter("Never mind, I need a flight to Rome.")
            terminal.wait_prompt()
            terminal.enter("/undo")
            terminal.wait_prompt()
            self.assertEqual(self.messages(terminal), fresh[:2])
            terminal.enter("At 7 pm please.")
            terminal.wait_prompt()
            self.assertEqual(self.messages(terminal), fresh)
            for _ in range(2):
                terminal.enter("/undo")
                terminal.wait_prompt()
            terminal.enter("/undo")
            terminal.wait_for("/undo: there is nothing to take back")
            terminal.wait_prompt()
            terminal.enter("/regen")
            terminal.wait_for("/regen: there is no message to answer")
            terminal.wait_prompt()
            self.leave(terminal)

    def test_system_and_clear(self):
        with self.chat("--system", "You book tables.") as terminal:
            terminal.wait_prompt()
            terminal.enter("Hello!")
            terminal.wait_prompt()
            self.assertEqual(self.messages(terminal)[0], ("system", "You book tables."))
            terminal.enter("/system You book  flights.")
            terminal.wait_prompt()
            terminal.enter("/clear")
            terminal.wait_prompt()
            self.assertEqual(self.messages(terminal), [("system", "You book  flights.")])
            terminal.enter("/system")
            terminal.wait_prompt()
            self.assertEqual(self.messages(terminal), [])
            self.leave(terminal)

    def test_set(self):
        with self.chat() as terminal:
            terminal.wait_prompt()
            terminal.enter("/set max-tokens 3")
            terminal.wait_for("max-tokens is 3")
            terminal.wait_prompt()
            terminal.enter("/set")
            terminal.wait_for("temp +0\\s")
            terminal.wait_for("max-tokens +3\\s")
            terminal.wait_prompt()
            terminal.enter(tessera.PROMPT)
            terminal.wait_for("reply 3 tokens")
            terminal.wait_prompt()
            terminal.enter("/set top-p 7")
            terminal.wait_for("/set top-p: expected a number from 0.0001 to 1, found '7'")
            terminal.wait_prompt()
            terminal.enter("/set tmp 1")
            terminal.wait_for("there is no such setting, did you mean temp\\?")
            terminal.wait_prompt()
            self.leave(terminal)

    def test_settings_leave_the_draws_alone(self):
        arguments = ("--temp", "1.5", "--top-k", "0", "--top-p", "1", "--min-p", "0", "--seed", "7",
                     "--max-tokens", "12", "--threads", "1", "--no-stats", "--verbose")

        def answers(*between):
            with Terminal(*arguments, env=self.env) as terminal:
                self.assertIn("seed: 7", terminal.wait_prompt(), "--verbose names every setting")
                terminal.enter("Tell me a story.")
                terminal.wait_prompt()
                found = [self.messages(terminal)[-1][1]]
                for line in between:
                    terminal.enter(line)
                    terminal.wait_for(f"{line[5:].split()[0]} is {line.split()[-1]}")
                    terminal.wait_prompt()
                    terminal.enter("/regen")
                    terminal.wait_prompt()
                    found.append(self.messages(terminal)[-1][1])
                self.leave(terminal)
            return found
        first, second, third = answers("/set max-tokens 12", "/set top-k 0")
        self.assertNotEqual(first, second)
        self.assertNotIn(third, (first, second))
        self.assertEqual(answers("/set max-tokens 12", "/set seed 7"), [first, second, first])

    def test_no_limit_can_be_set(self):
        with self.chat("--ignore-eos", "--ctx", "64") as terminal:
            terminal.wait_prompt()
            for spelled in ("none", "-1"):
                terminal.enter("/set max-tokens 9")
                terminal.wait_for("max-tokens is 9")
                terminal.wait_prompt()
                terminal.enter(f"/set max-tokens {spelled}")
                terminal.wait_for("max-tokens is none")
                terminal.wait_prompt()
            terminal.enter("/set seed -1")
            terminal.wait_for("seed is \\d+")
            terminal.wait_prompt()
            terminal.enter("/set repeat-last-n -1")
            terminal.wait_for("repeat-last-n is -1")
            terminal.wait_prompt()
            terminal.enter("/set")
            terminal.wait_for("max-tokens +none\\s")
            terminal.wait_prompt()
            terminal.enter(tessera.PROMPT)
            terminal.wait_for("context full: the answer stops here")
            terminal.wait_prompt()
            self.leave(terminal)

    def test_save_and_load(self):
        with self.chat() as terminal:
            terminal.wait_prompt()
            terminal.enter("/set top-k 7")
            terminal.wait_prompt()
            terminal.enter(tessera.PROMPT)
            terminal.wait_prompt()
            before = self.messages(terminal)
            self.leave(terminal)
        with self.chat() as terminal:
            terminal.wait_prompt()
            terminal.enter(f"/load {self.saved}")
            terminal.wait_for("loaded 2 messages")
            terminal.wait_prompt()
            terminal.enter("/set")
            terminal.wait_for("top-k +7\\s")
            terminal.wait_prompt()
            copy = tessera.folder() / "copy.json"
            copy.write_text(self.saved.read_text())
            self.assertEqual(self.messages(terminal), before)
            good = json.loads(copy.read_text())
            bad = tessera.folder() / "bad-chat.json"
            for change, fault in (
                    ({"tessera_chat": 2}, "tessera_chat: expected"),
                    ({"messages": 5}, "messages: expected"),
                    ({"messages": [{"role": "assistant", "content": "x"}]}, 'role: expected "user"'),
                    ({"messages": [{"role": "user", "content": 1}]}, "content: expected"),
                    ({"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]},
                     'role: expected "assistant"'),
                    ({"settings": {"temp": "hot"}}, "settings.temp: expected a number"),
                    ({"settings": {"tempo": "1"}}, "no such setting")):
                bad.write_text(json.dumps({**good, **change}))
                terminal.enter(f"/load {bad}")
                terminal.wait_for(re.escape(fault))
                terminal.wait_prompt()
            bad.write_text(copy.read_text()[:-20])
            terminal.enter(f"/load {bad}")
            terminal.wait_for("bad-chat.json: ")
            terminal.wait_prompt()
            terminal.enter("/load /nowhere/at-all")
            terminal.wait_for("/nowhere/at-all: ")
            terminal.wait_prompt()
            self.assertEqual(self.messages(terminal), before, "a chat that cannot be loaded changes nothing")
            terminal.enter("/save /nowhere/at-all")
            terminal.wait_for("/nowhere/at-all: ")
            terminal.wait_prompt()
            self.leave(terminal)

    def test_a_saved_chat_keeps_the_permissions_of_the_file_it_replaces(self):
        self.saved.write_text("{}")
        with self.chat() as terminal:
            terminal.wait_prompt()
            for mode in (0o600, 0o664):
                self.saved.chmod(mode)
                terminal.enter(f"/save {self.saved}")
                terminal.wait_for("saved 0 messages")
                terminal.wait_prompt()
                self.assertEqual(self.saved.stat().st_mode & 0o777, mode)
            self.leave(terminal)

    def test_help_stats_and_unknown_commands(self):
        with self.chat() as terminal:
            terminal.wait_prompt()
            terminal.enter("/help")
            text = terminal.wait_prompt()
            for name in "help clear system regen undo set stats save load bye".split():
                self.assertIn(f"/{name}", text)
            terminal.enter("/stats")
            terminal.wait_for("0 messages, 0 answers, 0 tokens generated; KV 0/1024 tokens at 8 bits; weights ")
            terminal.wait_prompt()
            terminal.enter("/regne")
            terminal.wait_for("unknown command /regne, did you mean /regen\\?")
            terminal.wait_prompt()
            terminal.enter("/bye now")
            terminal.wait_for("/bye: takes nothing, found 'now'")
            terminal.wait_prompt()
            terminal.enter("   ")
            terminal.wait_prompt()
            self.assertEqual(self.messages(terminal), [])
            self.leave(terminal)

    def test_colour(self):
        with self.chat() as terminal:
            terminal.wait_prompt()
            terminal.enter(tessera.PROMPT)
            terminal.wait_prompt()
            self.leave(terminal)
            self.assertIsNone(COLOUR.search(terminal.shown), "NO_COLOR is set")
        coloured = {name: value for name, value in self.env.items() if name != "NO_COLOR"}
        with self.chat(env=coloured) as terminal:
            terminal.wait_prompt()
            self.leave(terminal)
            self.assertIsNotNone(COLOUR.search(terminal.shown))
        with self.chat(env={**coloured, "TERM": "dumb"}) as terminal:
            terminal.wait_for("> ")
            self.leave(terminal)
            self.assertIsNone(COLOUR.search(terminal.shown), "a dumb terminal")

    def test_a_full_context_says_so(self):
        with Terminal("--temp", "0", "--ctx", "64", "--ignore-eos", "--threads", "1", env=self.env) as terminal:
            terminal.wait_prompt()
            terminal.enter(tessera.PROMPT)
            terminal.wait_for("context full: the answer stops here, at 64 of 64 tokens")
            terminal.wait_prompt()
            terminal.enter("And now?")
            terminal.wait_for("context full: the prompt takes \\d+ tokens and the context holds 64")
            terminal.wait_prompt()
            self.assertEqual(self.asked(terminal), [tessera.PROMPT], "a message without an answer is taken back")
            self.leave(terminal)

    def test_dropping_the_oldest_turns(self):
        arguments = ("--temp", "0", "--ctx", "96", "--max-tokens", "30", "--ignore-eos", "--overflow", "drop-oldest")
        with Terminal(*arguments, "--system", "Be brief.", "--threads", "1", env=self.env) as terminal:
            terminal.wait_prompt()
            for turn in range(4):
                terminal.enter(f"Turn {turn}: I want a table.")
                terminal.wait_for("reply 30 tokens")
                terminal.wait_prompt()
            self.assertIn("of the conversation no longer count", plain(terminal.shown))
            kept = self.messages(terminal)  # nothing is lost from what can be saved
            self.assertEqual(kept[0], ("system", "Be brief."))
            self.assertEqual(len(kept), 9)
            self.leave(terminal)

    def test_without_a_chat_template_text_is_continued(self):
        with self.chat("--raw") as terminal:
            terminal.wait_for("your text is continued as it is")
            terminal.wait_prompt()
            terminal.enter("Once upon a time")
            terminal.wait_prompt()
            alone = tessera.run("--raw", "-p", "Once upon a time", "--temp", "0", "--max-tokens", "24").stdout
            self.assertEqual(self.messages(terminal), [("user", "Once upon a time"), ("assistant", alone[:-1])])
            terminal.enter("/system x")
            terminal.wait_for("/system: this chat has no template")
            terminal.wait_prompt()
            self.leave(terminal)

    def test_a_resized_and_continued_terminal_still_works(self):
        import fcntl, os, signal, struct, termios
        with self.chat() as terminal:
            terminal.wait_prompt()
            terminal.type("half ")
            terminal.quiet(0.5)
            fcntl.ioctl(terminal._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 60, 0, 0))
            os.kill(terminal._child, signal.SIGSTOP)
            time.sleep(0.2)
            os.kill(terminal._child, signal.SIGCONT)
            terminal.quiet(0.5)
            terminal.enter("and half")
            terminal.wait_prompt()
            self.assertEqual(self.asked(terminal), ["half and half"])
            self.leave(terminal)

    def test_a_killed_chat_leaves_the_terminal_as_it_was(self):
        import os, signal, termios
        for ending in (signal.SIGTERM, signal.SIGHUP):
            with self.chat() as terminal:
                terminal.wait_prompt()
                terminal.quiet(0.2)
                line_mode = termios.ICANON | termios.ECHO
                self.assertNotEqual(termios.tcgetattr(terminal._terminal)[3] & line_mode, line_mode)
                os.kill(terminal._child, ending)
                self.assertEqual(terminal.exit_code(), -ending)
                self.assertEqual(termios.tcgetattr(terminal._terminal)[3] & line_mode, line_mode)
                self.assertIn("\x1b[?2004l", terminal.shown[terminal._seen:])


if __name__ == "__main__":
    unittest.main()
