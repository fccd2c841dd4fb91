import java.io.FileDescriptor;
import java.io.FileInputStream;
import java.lang.reflect.Field;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import ksllm.Ksllm;

/**
 * KsllmTest MODEL PADDED OFFSET LENGTH - examples/android on the host's JVM,
 * with the model of parrot.c: alone, and at an offset in another file. Ends
 * with "N passed, N failed".
 */
public final class KsllmTest {
    static final String HELLO = "안녕하세요, 반가워요 👩‍👩‍👧‍👦🇰🇷! \"따옴표\" "
            + "\\ and a tab\t<b>.\n둘째 줄입니다.";
    static final String TOOLS = "[{\"type\": \"function\", \"function\": "
            + "{\"name\": \"get_weather\", \"parameters\": {}}}]";
    static int passed, failed;
    static String file;

    static void check(String what, boolean holds) {
        if (holds)
            passed++;
        else
            failed++;
        if (!holds)
            System.out.println("failed: " + what);
    }

    static void throwsA(Class<?> kind, String what, Runnable call) {
        try {
            call.run();
            check(what + ": nothing was thrown", false);
        } catch (RuntimeException e) {
            check(what + ": " + e, kind.isInstance(e));
        }
    }

    static Ksllm.Settings settings(int nCtx) {
        Ksllm.Settings s = new Ksllm.Settings();
        s.nCtx = nCtx;
        s.nThreads = 2;
        return s;
    }

    static Ksllm.Options options(int maxTokens) {
        Ksllm.Options o = new Ksllm.Options();
        o.maxTokens = maxTokens;
        return o;
    }

    static String said(Ksllm k, String prompt, Ksllm.Options o) {
        StringBuilder all = new StringBuilder();
        k.generate(prompt, o, t -> {
            all.append(t);
            return true;
        });
        return all.toString();
    }

    static String user(String text) {
        return "[{\"role\": \"user\", \"content\": \"" + text + "\"}]";
    }

    static void text(Ksllm k) {
        check("text", said(k, "할머니 🧑‍🌾", options(0)).equals(HELLO));
        check("stop", k.result().stop == Ksllm.STOP_TOKEN);
        check("counts", k.result().nPrompt > 10 && k.result().nGenerated > 20);
        Ksllm.Options o = options(0);
        o.stops = new String[] {"nowhere", "🇰🇷"};
        check("stop text", said(k, "x", o).equals(
                HELLO.substring(0, HELLO.indexOf("🇰🇷"))));
        o = options(0);
        o.temperature = 0.7f;
        o.topP = 0.9f;
        o.seed = 5;
        o.unit = 2;
        List<String> pieces = new ArrayList<>();
        k.generate("x", o, pieces::add);
        check("eojeol", pieces.get(0).equals("안녕하세요, ")
                && pieces.get(2).equals("👩‍👩‍👧‍👦🇰🇷! "));
        said(k, "#", options(7));
        check("length", k.result().stop == Ksllm.STOP_LENGTH
                && k.result().nGenerated == 7);
        o = options(0);
        o.budgetMicros = 50000;
        said(k, "#", o);
        check("deadline", k.result().stop == Ksllm.STOP_DEADLINE);
        throwsA(Ksllm.KsllmException.class, "context",
                () -> said(k, String.join("", Collections.nCopies(9000, "x")),
                        options(0)));
        Ksllm.Options wrong = options(0);
        wrong.stops = new String[17];
        throwsA(Ksllm.KsllmException.class, "17 stops",
                () -> said(k, "x", wrong));
    }

    static void listeners(Ksllm k) {
        int[] n = {0};
        k.generate("#", options(0), t -> ++n[0] < 3);
        check("a listener ends it", n[0] == 3
                && k.result().stop == Ksllm.STOP_CALLBACK);
        try {
            k.generate("x", options(0), t -> {
                throw new IllegalArgumentException("listener 🧨");
            });
            check("no exception", false);
        } catch (IllegalArgumentException e) {
            check("its text", e.getMessage().equals("listener 🧨"));
        }
        try {
            k.generate("x", options(0), t -> {
                throw new StackOverflowError("an error too");
            });
            check("no error", false);
        } catch (StackOverflowError e) {
            check("error", true);
        }
        throwsA(IllegalStateException.class, "a call in a listener",
                () -> k.generate("x", options(0),
                        t -> said(k, "x", options(1)).isEmpty()));
        throwsA(IllegalStateException.class, "close in a listener",
                () -> k.generate("x", options(0), t -> {
                    k.close();
                    return true;
                }));
        throwsA(NullPointerException.class, "no listener",
                () -> k.generate("x", options(0), null));
        check("usable", said(k, "x", options(0)).equals(HELLO));
        k.generate("#", options(0), t -> {
            k.cancel();
            return true;
        });
        check("cancel in a listener",
                k.result().stop == Ksllm.STOP_CANCELLED);
    }

    static void chat(Ksllm k) {
        StringBuilder thinking = new StringBuilder();
        String message = k.chat(user("think"), null, null, options(0),
                (part, t) -> {
                    if (part == Ksllm.THINKING)
                        thinking.append(t);
                    return true;
                });
        check("thinking", thinking.toString().equals("곰곰이 생각해 봅니다 🤔"));
        check("message", message.contains("답은 둘입니다."));
        String talk = user("weather");
        List<Integer> parts = new ArrayList<>();
        String call = k.chat(talk, TOOLS, "{}", options(0), (part, t) -> {
            parts.add(part);
            if (part == Ksllm.CALL)
                check("name", t.equals("get_weather"));
            return true;
        });
        check("call", parts.get(0) == Ksllm.CALL
                && parts.get(parts.size() - 1) == Ksllm.CALL_END);
        talk = talk.substring(0, talk.length() - 1) + ", " + call
                + ", {\"role\": \"tool\", \"content\": \"맑음\"}]";
        check("after the call", k.chat(talk, TOOLS, null, options(0),
                (p, t) -> true).contains("서울은 맑습니다 ☀️"));
        message = k.chat(user("think"), null, null, options(0),
                (part, t) -> part == Ksllm.THINKING);
        check("what was said is kept", message.contains("곰곰이")
                && !message.contains("둘입니다"));
        throwsA(Ksllm.KsllmException.class, "wrong JSON",
                () -> k.chat("[{", null, null, options(0), (p, t) -> true));
        throwsA(ArithmeticException.class, "a part's exception",
                () -> k.chat(user("x"), null, null, options(0),
                        (p, t) -> 1 / (p * 0) > 0));
    }

    static void cancel(Ksllm k, ExecutorService pool) throws Exception {
        CountDownLatch begun = new CountDownLatch(1);
        Future<?> f = pool.submit(() -> k.generate("#", options(0), t -> {
            begun.countDown();
            return true;
        }));
        begun.await();
        long t0 = System.nanoTime();
        k.cancel();
        f.get(10, TimeUnit.SECONDS);
        double ms = (System.nanoTime() - t0) / 1e6;
        System.out.printf("cancel from another thread: %.1f ms%n", ms);
        check("cancel", k.result().stop == Ksllm.STOP_CANCELLED && ms < 500);
        k.cancel();
        check("a late one hits nothing", said(k, "x", options(0)).equals(HELLO));
    }

    static void close(ExecutorService pool) throws Exception {
        Ksllm k = Ksllm.open(file, settings(4096));
        CountDownLatch begun = new CountDownLatch(1);
        Future<?> running = pool.submit(() -> k.generate("#", options(0), t -> {
            begun.countDown();
            return true;
        }));
        begun.await();
        Future<?> waiting = pool.submit(() -> said(k, "#", options(0)));
        Thread.sleep(30);
        long t0 = System.nanoTime();
        k.close();
        System.out.printf("close while running: %.1f ms%n",
                (System.nanoTime() - t0) / 1e6);
        running.get(10, TimeUnit.SECONDS);
        check("closed", k.result().stop == Ksllm.STOP_CANCELLED);
        try {
            waiting.get(10, TimeUnit.SECONDS);
            check("who waited ran", false);
        } catch (java.util.concurrent.ExecutionException e) {
            check("who waited",
                    e.getCause() instanceof IllegalStateException);
        }
        throwsA(IllegalStateException.class, "closed",
                () -> said(k, "x", options(0)));
        k.cancel();
        k.close();
    }

    static int number(FileDescriptor d) throws Exception {
        Field f = FileDescriptor.class.getDeclaredField("fd");
        f.setAccessible(true);      // Android: ParcelFileDescriptor.getFd()
        return f.getInt(d);
    }

    static void files(String padded, long offset, long length)
            throws Exception {
        Ksllm k;
        try (FileInputStream in = new FileInputStream(padded)) {
            k = Ksllm.open(number(in.getFD()), offset, length, settings(512));
        }
        check("at an offset", said(k, "x", options(0)).equals(HELLO));
        k.close();
        try {
            Ksllm.open("/no/such/파일🙂.gguf", settings(0));
            check("no such file", false);
        } catch (Ksllm.KsllmException e) {
            check("its name: " + e.getMessage(), e.status == -3
                    && e.getMessage().contains("파일🙂"));
        }
        throwsA(Ksllm.KsllmException.class, "no descriptor",
                () -> Ksllm.open(-1, 0, 100, settings(0)));
        throwsA(Ksllm.KsllmException.class, "no session", () -> {
            Ksllm.Settings s = settings(0);
            s.nThreads = 1000;
            Ksllm.open(file, s);
        });
    }

    // More pieces than Java has room for local references in a call.
    static void many() {
        for (int i = 0; i < 3; i++)
            try (Ksllm k = Ksllm.open(file, settings(4096))) {
                said(k, "#", options(600));
                check("many", k.result().nGenerated == 600);
            }
    }

    public static void main(String[] args) throws Exception {
        file = args[0];
        ExecutorService pool = Executors.newCachedThreadPool();
        System.out.println("ksllm " + Ksllm.version());
        try (Ksllm k = Ksllm.open(file, settings(4096))) {
            text(k);
            listeners(k);
            chat(k);
            cancel(k, pool);
        }
        close(pool);
        files(args[1], Long.parseLong(args[2]), Long.parseLong(args[3]));
        many();
        pool.shutdown();
        System.out.println(passed + " passed, " + failed + " failed");
        System.exit(failed == 0 ? 0 : 1);
    }
}
