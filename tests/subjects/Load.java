// A JVM with its collector and compiler at work, until TERM: maps, strings and sums in four threads.
import java.util.*;
import java.util.concurrent.atomic.*;

public class Load {
    static volatile boolean told;
    static final AtomicLong rounds = new AtomicLong();
    static volatile String failure;

    static long sum(long seed, int steps) {
        long value = seed;
        for (int i = 0; i < steps; i++) value = value * 6364136223846793005L + (value >>> 33) + i;
        return value;
    }

    static void work(long seed) {
        long expected = sum(seed, 10_000);
        while (!told) {
            Map<String, byte[]> map = new HashMap<>();
            for (int i = 0; i < 500; i++) map.put("key" + seed + "-" + i, new byte[200 + i]);
            for (int i = 0; i < 500; i++)
                if (map.get("key" + seed + "-" + i).length != 200 + i) failure = "the map of " + seed;
            if (sum(seed, 10_000) != expected) failure = "the sum of " + seed;
            rounds.incrementAndGet();
        }
    }

    public static void main(String[] args) throws Exception {
        List<Thread> threads = new ArrayList<>();
        for (long seed = 1; seed <= 4; seed++) {
            long mine = seed;
            threads.add(new Thread(() -> work(mine)));
        }
        for (Thread thread : threads) thread.start();
        while (rounds.get() < 200) Thread.sleep(10);
        sun.misc.Signal.handle(new sun.misc.Signal("TERM"), signal -> {
            Thread judge = new Thread(() -> {
                try {
                    long before = rounds.get();
                    for (int i = 0; i < 500 && rounds.get() == before; i++) Thread.sleep(10);
                    if (rounds.get() == before) failure = "threads stand still";
                    told = true;
                    for (Thread thread : threads) thread.join(10_000);
                } catch (InterruptedException interrupted) {
                    failure = "interrupted";
                }
                System.out.println(failure == null ? "OK" : "FAIL: " + failure);
                System.out.flush();
                Runtime.getRuntime().halt(failure == null ? 0 : 1);
            });
            // Who tells of signals is a daemon, and so would be its offspring: the JVM would not wait for it.
            judge.setDaemon(false);
            judge.start();
        });
        System.out.println("READY");
    }
}
