package ksllm;

import java.nio.charset.StandardCharsets;
import java.util.concurrent.locks.ReentrantLock;

/**
 * A model with one session. ksllm.h is the manual; names are those there.
 *
 * <p>Calls that run the model wait for each other and take long: not on the
 * main thread. cancel() and close() may come from any thread at any time, and
 * close() waits for the call that it ends. From a listener only cancel() is
 * allowed. What a listener throws comes out of the call, and the session can
 * go on. Text is whole characters: half an emoji never comes.
 */
public final class Ksllm implements AutoCloseable {
    /** Takes text as it comes; returns false to end the answer. */
    public interface Listener {
        boolean onText(String text);
    }

    /** Takes parts of a chat's answer: TEXT, THINKING ... */
    public interface PartListener {
        boolean onPart(int part, String text);
    }

    public static final int TEXT = 0, THINKING = 1, CALL = 2, ARGUMENTS = 3,
            CALL_END = 4;
    private static final int MESSAGE = 5;

    /** What result().stop can be. */
    public static final int STOP_NONE = 0, STOP_TOKEN = 1, STOP_TEXT = 2,
            STOP_LENGTH = 3, STOP_CONTEXT = 4, STOP_CALLBACK = 5,
            STOP_CANCELLED = 6, STOP_DEADLINE = 7;

    /** For a model and its session; 0 is the library's default. */
    public static final class Settings {
        public int nCtx, nBatch, nThreads;
    }

    /** For one answer. */
    public static final class Options {
        public int maxTokens;           // 0: until the context is full
        public long budgetMicros;       // 0: no limit
        public float temperature = -1;  // -1: as the model's file recommends
        public float topP = -1;
        public long seed;
        public int unit;                // 0 character, 1 grapheme, 2 eojeol
        public float maxTokensPerSecond;    // 0: no limit; saves the battery
        public int maxThinking;
        public String[] stops = {};
    }

    /** The last call's. A cancel and a deadline are no exceptions: see stop. */
    public static final class Result {
        public final int stop, nPrompt, nReused, nGenerated;
        public final double firstSeconds, totalSeconds;

        Result(long[] r) {
            stop = (int) r[0];
            nPrompt = (int) r[1];
            nReused = (int) r[2];
            nGenerated = (int) r[3];
            firstSeconds = r[4] / 1e9;
            totalSeconds = r[5] / 1e9;
        }
    }

    @SuppressWarnings("serial")
    public static final class KsllmException extends RuntimeException {
        /** A KSLLM_ERR_ of ksllm.h, negative. */
        public final int status;

        KsllmException(int status, String text) {
            super(text);
            this.status = status;
        }
    }

    static {
        System.loadLibrary("ksllm_jni");
    }

    private final ReentrantLock turn = new ReentrantLock();    // who runs
    // Guarded by this:
    private long handle;
    private boolean running, closing;
    private Result result;

    private Ksllm(long handle) {
        this.handle = handle;
    }

    /** Opens a file. */
    public static Ksllm open(String path, Settings s) {
        return new Ksllm(nativeOpen(utf8(path), -1, 0, 0, s.nCtx, s.nBatch,
                s.nThreads));
    }

    /**
     * Opens a part of an open file, at any offset, without a copy. On Android:
     * a = assets.openFd("model.gguf"), stored and not compressed; then
     * a.getParcelFileDescriptor().getFd(), a.getStartOffset(), a.getLength().
     * The descriptor may be closed afterwards.
     */
    public static Ksllm open(int fd, long offset, long length, Settings s) {
        return new Ksllm(nativeOpen(null, fd, offset, length, s.nCtx, s.nBatch,
                s.nThreads));
    }

    /** Continues a text. */
    public void generate(String prompt, Options o, Listener listener) {
        run(utf8(prompt), null, o,
                new Sink((part, text) -> listener.onText(text)));
    }

    /**
     * One turn of a conversation, given whole as JSON in OpenAI's form. What
     * the session holds of it is not evaluated again. toolsJson and
     * variablesJson may be null. Returns the answer as a JSON message to append
     * to the messages, or null if nothing of it came.
     */
    public String chat(String messagesJson, String toolsJson,
            String variablesJson, Options o, PartListener listener) {
        Sink sink = new Sink(listener);
        run(utf8(messagesJson), new byte[][] {utf8(toolsJson),
            utf8(variablesJson)}, o, sink);
        return sink.message.length() == 0 ? null : sink.message.toString();
    }

    /** Why and how the last call ended; null before the first. */
    public synchronized Result result() {
        return result;
    }

    /** Ends the call that runs now, if one does, within milliseconds. */
    public synchronized void cancel() {
        if (running)
            nativeCancel(handle);
    }

    /** Ends the call that runs, waits for it, frees the memory. */
    @Override
    public void close() {
        if (turn.isHeldByCurrentThread())
            throw new IllegalStateException("close() in a listener");
        synchronized (this) {
            closing = true;
            cancel();
        }
        turn.lock();
        try {
            synchronized (this) {
                if (handle != 0)
                    nativeClose(handle);
                handle = 0;
            }
        } finally {
            turn.unlock();
        }
    }

    public static String version() {
        return text(nativeVersion());
    }

    private void run(byte[] text, byte[][] chat, Options o, Sink sink) {
        if (turn.isHeldByCurrentThread())
            throw new IllegalStateException("a call in a listener");
        turn.lock();
        try {
            long h;
            synchronized (this) {
                if (closing)
                    throw new IllegalStateException("closed");
                nativeReady(handle);
                running = true;
                h = handle;
            }
            long[] numbers = new long[6];
            try {
                nativeRun(h, text, chat, stops(o.stops), o.maxTokens,
                        o.budgetMicros, o.temperature, o.topP, o.seed, o.unit,
                        o.maxTokensPerSecond, o.maxThinking, sink, numbers);
            } finally {
                synchronized (this) {
                    running = false;
                    result = new Result(numbers);
                }
            }
        } finally {
            turn.unlock();
        }
    }

    private static final class Sink {
        final PartListener listener;
        final StringBuilder message = new StringBuilder();

        Sink(PartListener listener) {
            this.listener = listener;
        }
    }

    // Strings cross as UTF-8 in byte[]: JNI's own strings are "modified UTF-8",
    // in which an emoji is six bytes that no one else understands.
    private static byte[] utf8(String s) {
        return s == null ? null : s.getBytes(StandardCharsets.UTF_8);
    }

    private static String text(byte[] b) {
        return new String(b, StandardCharsets.UTF_8);
    }

    private static byte[][] stops(String[] stops) {
        byte[][] all = new byte[stops.length][];
        for (int i = 0; i < stops.length; i++)
            all[i] = utf8(stops[i]);
        return all;
    }

    // Called from C: keep these names when shrinking (README.md).
    private static boolean onPart(Sink sink, int part, byte[] b) {
        if (part == MESSAGE) {
            sink.message.append(text(b));
            return true;
        }
        return sink.listener.onPart(part, text(b));
    }

    private static KsllmException error(int status, byte[] b) {
        return new KsllmException(status, text(b));
    }

    private static native byte[] nativeVersion();

    private static native long nativeOpen(byte[] path, int fd, long offset,
            long length, int nCtx, int nBatch, int nThreads);

    private static native void nativeRun(long handle, byte[] text,
            byte[][] chat, byte[][] stops, int maxTokens, long budgetMicros,
            float temperature, float topP, long seed, int unit,
            float maxTokensPerSecond, int maxThinking, Sink sink,
            long[] numbers);

    private static native void nativeReady(long handle);

    private static native void nativeCancel(long handle);

    private static native void nativeClose(long handle);
}
