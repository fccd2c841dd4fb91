"""ksllm.py - Korean language models from Python: one file over libksllm.so.

    from ksllm import Model
    with Model("model.gguf") as model:
        for text in model.stream("우리 할머니는 시골에서", max_tokens=100):
            print(text, end="", flush=True)
        print(model.chat([{"role": "user", "content": "안녕?"}])["content"])

Needs Python 3.8 and the shared library (`make shared`), which is looked for in
$KSLLM_LIB, beside this file, and where the system looks. ksllm.h is the manual:
a keyword here is the field of the same name there.

A Model has one session, so calls that run it wait for each other; open the file
twice to run two, the weights are shared. cancel() may come from any thread.
What a callback raises comes out of the call that called it. A cancel and a
budget that ran out raise nothing: model.result says so, and the text is kept.
"""
import contextlib
import ctypes as C
import json
import os
import queue
import threading

STOPS = ("none", "token", "text", "length", "context", "callback",
         "cancelled", "deadline", "complete")
PARTS = ("text", "thinking", "call", "arguments", "call_end", "message")
UNITS = ("character", "grapheme", "eojeol")
POOLINGS = (None, "last", "mean", "model", "first", "rank")
KINDS = ("json", "schema", "choices", "regex", "tools", "gbnf")
CALLS = ("auto", "required", "none")
BOS, SPECIAL, COMPOSE, EOS = 1, 2, 4, 8         # ksllm_encode's flags
_CANCELLED, _DEADLINE = -8, -9


class KsllmError(Exception):
    """status is a name of ksllm.h: "KSLLM_ERR_FORMAT" and so on."""

    def __init__(self, status, text):
        super().__init__("%s: %s" % (status, text))
        self.status, self.text = status, text


# ---- the structs of ksllm.h ----

_TYPES = {"i32": C.c_int32, "u32": C.c_uint32, "i64": C.c_int64,
          "u64": C.c_uint64, "f32": C.c_float, "f64": C.c_double,
          "size": C.c_size_t,
          "enum": C.c_int, "bool": C.c_bool, "str": C.c_char_p,
          "ptr": C.c_void_p, "text500": C.c_char * 500,
          "hash": C.c_uint64 * 2}
STRUCTS = {}


def _struct(name, fields):      # fields: "type name name; type name"
    rows = [row.split() for row in fields.split(";")]
    made = type(name, (C.Structure,), {"_fields_": [
        (field, _TYPES[row[0]]) for row in rows for field in row[1:]]})
    _TYPES[name] = STRUCTS[name] = made
    return made


Text = _struct("text", "ptr data; size size")
Error = _struct("error", "enum status; u64 offset; text500 text")
Info = _struct("model_info", """size size; text architecture name; str isa;
    u64 file_bytes weight_bytes n_parameters; u32 n_layers n_embd n_ffn n_vocab
    n_heads n_kv_heads head_dim n_ctx_train window; i32 bos eos eot unk pad;
    bool adds_bos adds_eos; u32 max_piece_bytes picture_tokens;
    i32 picture_place; u32 sound_tokens; i32 sound_place""")
ModelOptions = _struct("model_options", """size size; bool vocab_only in_memory;
    ptr allocator; str pretokenizer isa; ptr overrides; size n_overrides;
    str media_path; ptr media_data; size media_size""")
Override = _struct("override", """str key; enum type; i64 integer; f64 number;
    str text""")
SessionOptions = _struct("session_options", """size size; u32 n_ctx n_batch
    n_threads; enum kv_type overflow; u32 n_keep; enum pooling; ptr memory;
    size memory_size; ptr allocator parallel_for parallel_ctx on_thread
    thread_ctx; size grammar_bytes n_draft max_rank""")
Cancel = _struct("cancel", "i32 flag")
Control = _struct("control", """size size; ptr cancel;
    f32 max_tokens_per_second; u64 budget_us; ptr on_progress progress_ctx""")
Sampling = _struct("sampling", """size size; f32 temperature; u32 top_k;
    f32 top_p min_p repeat_penalty frequency_penalty presence_penalty;
    u32 penalty_window; u64 seed; ptr biases; size n_biases;
    ptr filter filter_ctx""")
Piece = _struct("piece", """text text; i32 token; f32 logprob; ptr top;
    size n_top index""")
Generation = _struct("generation", """size size; ptr text; size text_size;
    u32 encode_flags; ptr tokens; size n_tokens; bool append; u32 max_tokens;
    ptr sampling stop_tokens; size n_stop_tokens; bool ignore_stop;
    ptr stop_texts; size n_stop_texts; u32 n_top decode_flags;
    ptr on_piece piece_ctx control; enum unit; u32 max_thinking;
    bool complete allowed_only drafts; str thinking; ptr grammar drafter""")
Result = _struct("result", """size size; enum stop; i32 stop_token stop_text;
    size n_prompt n_reused n_generated; u64 prompt_ns first_ns total_ns;
    size n_thinking n_closed n_drafted n_accepted""")
Chat = _struct("chat", """size size; text messages tools variables
    template_text; str template_name; bool add_generation_prompt
    continue_final; i64 local_time; ptr memory; size memory_size;
    ptr allocator; str format; ptr media; size n_media""")
GrammarOptions = _struct("grammar_options", """size size; enum kind calls;
    text source; str format tool; bool ordered lenient;
    u32 max_space max_program; ptr allocator""")
Image = _struct("image", "ptr rgb; u32 width height; size stride")
Sound = _struct("sound", "ptr samples; size n_samples")
MediaOptions = _struct("media_options", "size size; u32 max_tokens max_tiles")
MediaSize = _struct("media_size", """size size memory; u32 n_tokens n_tiles
    width height; u64 n_macs""")
Media = _struct("media", """size size; ptr memory; size memory_size;
    ptr model tokens rows; hash hash; u32 n_tokens n_embd; u64 n_samples""")
EncoderOptions = _struct("encoder_options", """size size; u32 max_tokens
    n_threads; ptr memory; size memory_size; ptr allocator parallel_for
    parallel_ctx on_thread thread_ctx""")
_OnPiece = C.CFUNCTYPE(C.c_int, C.c_void_p, C.POINTER(Piece))
_OnPart = C.CFUNCTYPE(C.c_int, C.c_void_p, C.c_int, Text)


# ---- the functions ----

def _load():
    beside = os.path.dirname(os.path.abspath(__file__))
    wanted = os.environ.get("KSLLM_LIB")
    names = [wanted] if wanted else [
        os.path.join(beside, "libksllm.so"), "libksllm.so", "libksllm.so.0.2",
        "libksllm.dylib"]
    why = []
    for name in names:
        try:
            return C.CDLL(name)         # releases Python's lock while it runs
        except OSError as error:
            why.append(str(error))
    raise ImportError("no libksllm (`make shared`, KSLLM_LIB=FILE): "
                      + "; ".join(why))


lib = _load()
for _row in """str version; str status_name enum
    ; enum model_open str ptr ptr ptr; enum model_get_info ptr ptr ptr; none model_close ptr
    ; enum session_create ptr ptr ptr ptr; none session_free ptr
    ; i64 encode ptr ptr size u32 ptr size ptr
    ; i64 decode ptr ptr size u32 ptr size ptr
    ; i64 chat_render ptr ptr ptr size ptr; enum generate ptr ptr ptr ptr
    ; enum chat_generate ptr ptr ptr ptr ptr ptr ptr
    ; enum session_sync ptr ptr size ptr ptr; ptr session_embedding ptr
    ; enum session_unit_embedding ptr size ptr ptr
    ; enum adapter_open ptr ptr ptr ptr; none adapter_close ptr
    ; u32 adapter_rank ptr; enum session_set_adapter ptr ptr f32 size ptr
    ; none cancel_set ptr; none sampling_from_model_sized ptr size ptr
    ; none model_options_init_sized ptr size; none chat_init_sized ptr size
    ; none session_options_init_sized ptr size; none control_init_sized ptr size
    ; none generation_init_sized ptr size
    ; none grammar_options_init_sized ptr size
    ; enum grammar_create ptr ptr ptr ptr; none grammar_free ptr
    ; none media_options_init_sized ptr size
    ; none encoder_options_init_sized ptr size
    ; enum encoder_create ptr ptr ptr ptr; none encoder_free ptr
    ; enum media_measure ptr ptr ptr ptr ptr
    ; enum media_encode ptr ptr ptr ptr ptr ptr
    ; enum media_measure_sound ptr ptr ptr ptr
    ; enum media_encode_sound ptr ptr ptr ptr ptr""".split(";"):
    _gives, _name, *_takes = _row.split()
    _f = getattr(lib, "ksllm_" + _name)
    _f.restype, _f.argtypes = _TYPES.get(_gives), [_TYPES[t] for t in _takes]


def _set(struct, fields):       # a name that is no field is the caller's error
    known = [name for name, _ in struct._fields_[1:]]
    for name, value in fields.items():
        if name not in known:
            raise TypeError("there is no option %r" % name)
        setattr(struct, name, value)
    return struct


def _init(struct, **fields):
    made = struct()
    init = getattr(lib, "ksllm_%s_init_sized" % struct.__name__)
    init(C.addressof(made), C.sizeof(made))
    return _set(made, fields)


def _text(data):                # of bytes, which must be kept
    return Text(C.cast(data, C.c_void_p), len(data)) if data else Text(None, 0)


def _str(text):
    return C.string_at(text.data, text.size).decode() if text.size else ""


def _check(status, error):
    if status < 0:
        raise KsllmError(lib.ksllm_status_name(status).decode(),
                         error.text.decode("utf-8", "replace"))
    return status


def _call(function, *args):     # with a ksllm_error as its last argument
    error = Error()
    return _check(function(*args, C.addressof(error)), error)


def _two_calls(item, function, *args):  # measures, then fills: (array, n)
    n = _call(function, *args, None, 0)
    array = (item * n)()
    return array, _call(function, *args, C.addressof(array), n)


class _Run:
    """One call that generates, with all that must live as long as it does."""

    def __init__(self, model, max_tokens=0, stop=(), unit="character",
                 special=False, max_thinking=0, budget=0,
                 max_tokens_per_second=0, grammar=None, **sampling):
        self.grammar = grammar
        self.failed, self.cancel, self.result = None, Cancel(), Result()
        self.result.size = C.sizeof(Result)
        self.control = _init(
            Control, cancel=C.addressof(self.cancel),
            budget_us=max(1, int(budget * 1e6)) if budget else 0,
            max_tokens_per_second=max_tokens_per_second)
        self.sampling = Sampling()
        lib.ksllm_sampling_from_model_sized(
            C.addressof(self.sampling), C.sizeof(Sampling), model)
        _set(self.sampling, sampling)
        stops = [stop] if isinstance(stop, str) else list(stop)
        self.stop_bytes = [s.encode() for s in stops]
        self.stops = (Text * len(stops))(*map(_text, self.stop_bytes))
        self.generation = _init(
            Generation, max_tokens=max_tokens, decode_flags=int(special),
            sampling=C.addressof(self.sampling), unit=UNITS.index(unit),
            stop_texts=C.addressof(self.stops), n_stop_texts=len(stops),
            control=C.addressof(self.control), max_thinking=max_thinking)

    @contextlib.contextmanager
    def obeying(self, model):
        """While the grammar is there that was asked for, if one was."""
        made, asked = C.c_void_p(), dict(self.grammar or {})
        if asked:
            source = asked.pop("source", "")
            source = (source if isinstance(source, str) else json.dumps(
                source, ensure_ascii=False)).encode()
            tool = asked.pop("tool", None)
            options = _init(
                GrammarOptions, kind=KINDS.index(asked.pop("kind", "json")),
                calls=CALLS.index(asked.pop("calls", "auto")),
                source=_text(source), tool=tool and tool.encode(), **asked)
            _call(lib.ksllm_grammar_create, model, C.addressof(options),
                  C.addressof(made))
        self.generation.grammar = made
        try:
            yield
        finally:
            lib.ksllm_grammar_free(made)

    def guarded(self, function):
        """A callback from C: nothing may be raised through it."""
        def callback(*args):
            try:
                return bool(function(*args))
            except BaseException as error:  # also KeyboardInterrupt
                self.failed = error
                return True
        return callback


def _overrides(values):         # types as in ksllm_meta_type
    made = (Override * len(values))()
    for o, (key, v) in zip(made, values.items()):
        o.key = key.encode()
        if isinstance(v, str):
            o.type, o.text = 8, v.encode()
        elif isinstance(v, float):
            o.type, o.number = 12, v
        else:
            o.type, o.integer = 7 if isinstance(v, bool) else 11, v
    return made


class Model:
    """A model and a session on it. pooling ("last", "mean", "first",
    "rank", "model": as the file says) is for embed(); adapter is the file of a
    LoRA adapter; overrides ({key: bool, int, float or str}) are metadata in
    place of the file's; media_path is a second file with its towers."""

    def __init__(self, path, pretokenizer=None, in_memory=False, isa=None,
                 pooling=None, overrides=None, adapter=None, media_path=None,
                 **session):
        self._model, self._session = C.c_void_p(), C.c_void_p()
        self._adapter = C.c_void_p()
        self._turn = threading.RLock()          # who runs the session
        self._free = threading.Condition()      # guards the next two
        self._users, self._run, self.result = 0, None, None
        options = _init(ModelOptions, in_memory=in_memory,
                        pretokenizer=pretokenizer and pretokenizer.encode(),
                        isa=isa and isa.encode(),
                        media_path=media_path and os.fsencode(media_path))
        values = _overrides(overrides or {})
        options.overrides = C.addressof(values) if overrides else None
        options.n_overrides = len(values)
        wanted = _init(SessionOptions, pooling=POOLINGS.index(pooling),
                       **session)
        _call(lib.ksllm_model_open, os.fsencode(path), C.addressof(options),
              C.addressof(self._model))
        try:
            self.info = Info(C.sizeof(Info))
            _call(lib.ksllm_model_get_info, self._model,
                  C.addressof(self.info))
            if adapter:
                _call(lib.ksllm_adapter_open, self._model,
                      os.fsencode(adapter), C.addressof(self._adapter))
                wanted.max_rank = lib.ksllm_adapter_rank(self._adapter)
            _call(lib.ksllm_session_create, self._model, C.addressof(wanted),
                  C.addressof(self._session))
            if adapter:
                self.adapt()
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):
        if getattr(self, "_free", None):
            self.close()

    def close(self):
        """Cancels what runs, waits for it and frees. Not from a callback."""
        with self._free:
            if self._run and self._run.thread == threading.get_ident():
                raise KsllmError("KSLLM_ERR_STATE", "close() in a callback")
            model, session = self._model, self._session
            self._model = self._session = None
            self.cancel()
            self._free.wait_for(lambda: not self._users)
        if model:
            lib.ksllm_session_free(session)
            lib.ksllm_adapter_close(self._adapter)
            lib.ksllm_model_close(model)

    def cancel(self):
        """Ends the call that runs, within milliseconds. From any thread."""
        with self._free:
            if self._run:
                lib.ksllm_cancel_set(C.addressof(self._run.cancel))

    @property
    def stop(self):
        """Why the last answer ended: one of STOPS."""
        return STOPS[self.result.stop] if self.result else "none"

    # ---- text and tokens ----

    def encode(self, text, flags=COMPOSE):
        """Its tokens. SPECIAL never for text from users: it forges turns."""
        data = text.encode()
        with self._using() as (model, _):
            return _two_calls(C.c_int32, lib.ksllm_encode, model, data,
                              len(data), flags)[0][:]

    def decode(self, tokens, special=False):
        tokens = (C.c_int32 * len(tokens))(*tokens)
        with self._using() as (model, _):
            return _two_calls(C.c_char, lib.ksllm_decode, model, tokens,
                              len(tokens), int(special))[0].raw.decode()

    def render(self, messages, tools=None, variables=None, template=None):
        """The prompt that the model's template makes of a conversation."""
        chat, _kept = _chat_of(messages, tools, variables, template)
        with self._using() as (model, _):
            return _two_calls(C.c_char, lib.ksllm_chat_render, model,
                              C.addressof(chat))[0].raw.decode()

    def adapt(self, scale=1.0, begin=0):
        """Computes with the adapter, so strong (0: without it), from that
        position of the context on."""
        with self._running(self._begin({})) as (_, session):
            _call(lib.ksllm_session_set_adapter, session, self._adapter, scale,
                  begin)

    def embed(self, text, unit=False, n=0):
        """n_embd numbers; with unit the first n (0: all), at length 1."""
        tokens = self.encode(text, BOS | COMPOSE | EOS)
        array = (C.c_int32 * len(tokens))(*tokens)
        run = self._begin({})
        with self._running(run) as (_, session):
            _call(lib.ksllm_session_sync, session, array, len(array),
                  C.addressof(run.control))
            at = lib.ksllm_session_embedding(session)
            if not at:
                raise KsllmError("KSLLM_ERR_STATE", "Model(pooling='mean')")
            if not unit:
                return (C.c_float * self.info.n_embd).from_address(at)[:]
            out = (C.c_float * (n or self.info.n_embd))()
            _call(lib.ksllm_session_unit_embedding, session, n,
                  C.addressof(out))
            return out[:]

    # ---- answers; options: those of _Run, and fields of ksllm_sampling ----

    # ---- pictures and sounds ----

    def look(self, rgb, width, height, n_threads=0, **options):
        """A picture, bytes of R, G and B from the top, as the model reads it:
        an item of chat()'s media, in as many turns as it is of use. It takes
        .n_tokens; max_tokens limits them."""
        data = bytes(rgb)
        if len(data) != 3 * width * height:
            raise ValueError("rgb has not 3 bytes for each pixel")
        image = Image(C.cast(data, C.c_void_p), width, height, 0)
        return self._media(n_threads, lib.ksllm_media_measure,
                           lib.ksllm_media_encode, image,
                           _init(MediaOptions, **options))

    def hear(self, samples, n_threads=0):
        """The same of a sound: floats from -1 to 1, 16,000 a second."""
        data = (C.c_float * len(samples))(*samples)
        return self._media(n_threads, lib.ksllm_media_measure_sound,
                           lib.ksllm_media_encode_sound,
                           Sound(C.addressof(data), len(samples)))

    def _media(self, n_threads, measure, encode, *what):
        what = [C.byref(w) for w in what]
        size, encoder = MediaSize(C.sizeof(MediaSize)), C.c_void_p()
        with self._using() as (model, _):
            _call(measure, model, *what, C.addressof(size))
            memory = C.create_string_buffer(size.memory)
            media = Media(C.sizeof(Media), C.addressof(memory), size.memory)
            media.kept = memory
            wanted = _init(EncoderOptions, max_tokens=size.n_tokens,
                           n_threads=n_threads)
            _call(lib.ksllm_encoder_create, model, C.addressof(wanted),
                  C.addressof(encoder))
            try:
                _call(encode, encoder, *what, None, C.addressof(media))
            finally:
                lib.ksllm_encoder_free(encoder)
        return media

    def generate(self, prompt, on_text=None, **options):
        """The text that follows a text or tokens. on_text(text) may return
        True to end it."""
        return self._generate(self._begin(options), prompt, on_text)

    def stream(self, prompt, **options):
        """The same, as a generator; leaving it ends the answer."""
        run = self._begin(options)
        return _stream(run, lambda put: self._generate(run, prompt, put))

    def chat(self, messages, tools=None, variables=None, on_part=None,
             template=None, media=(), **options):
        """One turn: the answer as a message to append, None if there is none.
        on_part(kind, text), with a kind of PARTS, may return True to end it:
        the message is then what was said until there. media are what look()
        and hear() gave, one for each place in the messages."""
        return self._chat(self._begin(options), on_part, messages, tools,
                          variables, template, media)

    def chat_stream(self, messages, tools=None, variables=None,
                    template=None, media=(), **options):
        """The same, as a generator of (kind, text); last ("message", dict)."""
        run = self._begin(options)

        def work(put):
            message = self._chat(run, lambda *part: put(part), messages, tools,
                                 variables, template, media)
            put(("message", message))
        return _stream(run, work)

    def _generate(self, run, prompt, on_text):
        out, want = [], run.generation

        def piece(_, p):
            text = _str(p[0].text)
            if text:
                out.append(text)
                return on_text and on_text(text)
        call = _OnPiece(run.guarded(piece))
        want.on_piece = C.cast(call, C.c_void_p)
        if isinstance(prompt, str):
            data = prompt.encode()
            want.text, want.text_size = C.cast(data, C.c_void_p), len(data)
        else:
            data = (C.c_int32 * len(prompt))(*prompt)
            want.tokens, want.n_tokens = C.addressof(data), len(data)
        self._do(run, lib.ksllm_generate, C.addressof(want),
                 C.addressof(run.result))
        return "".join(out)

    def _chat(self, run, on_part, *of):
        chat, _kept = _chat_of(*of)
        message = []

        def part(_, kind, text):
            if PARTS[kind] == "message":
                message.append(_str(text))
            elif on_part and on_part(PARTS[kind], _str(text)):
                lib.ksllm_cancel_set(C.addressof(run.cancel))
        call = _OnPart(run.guarded(part))
        self._do(run, lib.ksllm_chat_generate, C.addressof(chat),
                 C.addressof(run.generation), C.cast(call, C.c_void_p), None,
                 C.addressof(run.result))
        return json.loads("".join(message)) if message else None

    # ---- who runs ----

    def _begin(self, options):
        with self._using() as (model, _):
            return _Run(model, **options)

    def _do(self, run, function, *args):
        error = Error()
        with self._running(run) as (model, session), run.obeying(model):
            status = function(session, *args, C.addressof(error))
        if run.failed:
            raise run.failed
        if status not in (_CANCELLED, _DEADLINE):
            _check(status, error)

    @contextlib.contextmanager
    def _using(self):           # close() waits until nobody is
        with self._free:
            if not self._model:
                raise KsllmError("KSLLM_ERR_STATE", "the model is closed")
            self._users += 1
            both = self._model, self._session
        try:
            yield both
        finally:
            with self._free:
                self._users -= 1
                self._free.notify_all()

    @contextlib.contextmanager
    def _running(self, run):
        with self._using() as both, self._turn:
            with self._free:
                if not self._model:
                    raise KsllmError("KSLLM_ERR_STATE", "the model is closed")
                outer, self._run = self._run, run
                run.thread = threading.get_ident()
            try:
                yield both
            finally:
                with self._free:
                    self._run, self.result = outer, run.result


def _chat_of(messages, tools, variables, template, media=()):
    kept = [None if x is None else json.dumps(x, ensure_ascii=False).encode()
            for x in (messages, tools, variables)]
    kept.append(template and template.encode())
    kept.append((C.c_void_p * len(media))(*map(C.addressof, media)))
    return _init(Chat, messages=_text(kept[0]), tools=_text(kept[1]),
                 variables=_text(kept[2]), template_text=_text(kept[3]),
                 media=C.addressof(kept[4]), n_media=len(media)), kept


def _stream(run, work):
    """What work(put) puts, from a thread of its own."""
    items = queue.SimpleQueue()

    def thread():
        try:
            work(items.put)
            items.put(None)
        except BaseException as error:
            items.put(error)
    worker = threading.Thread(target=thread, daemon=True)
    worker.start()
    try:
        while True:
            item = items.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        lib.ksllm_cancel_set(C.addressof(run.cancel))
        worker.join()
