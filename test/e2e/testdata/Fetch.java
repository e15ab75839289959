import java.io.IOException;
import java.io.InputStream;
import java.net.URI;
import java.net.URL;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicInteger;
import javax.net.ssl.HttpsURLConnection;

/** Threads, a child, and requests by both of Java's clients, told nothing of a proxy: one line each. */
public class Fetch {
    public static void main(String[] args) throws Exception {
        AtomicInteger ran = new AtomicInteger();
        ExecutorService pool = Executors.newFixedThreadPool(64);
        for (int i = 0; i < 1000; i++) {
            pool.submit(ran::incrementAndGet);
        }
        pool.shutdown();
        while (!pool.isTerminated()) {
            Thread.yield();
        }
        System.out.println("threads " + ran);
        Process child = new ProcessBuilder("sh", "-c", "echo child; exit 7").start();
        System.out.println(read(child.getInputStream()).trim() + " " + child.waitFor());
        HttpClient client = HttpClient.newHttpClient();
        for (String url : args) {
            System.out.println("old " + old(url));
            System.out.println("new " + modern(client, url));
        }
    }

    private static String old(String url) {
        try {
            HttpsURLConnection c = (HttpsURLConnection) new URL(url).openConnection();
            return c.getResponseCode() < 400 ? read(c.getInputStream()) : Integer.toString(c.getResponseCode());
        } catch (IOException e) {
            return e.toString();
        }
    }

    private static String modern(HttpClient client, String url) throws InterruptedException {
        try {
            HttpResponse<String> r = client.send(HttpRequest.newBuilder(URI.create(url)).build(), HttpResponse.BodyHandlers.ofString());
            return r.statusCode() < 400 ? r.body() : Integer.toString(r.statusCode());
        } catch (IOException e) {
            return e.toString();
        }
    }

    private static String read(InputStream in) throws IOException {
        return new String(in.readAllBytes());
    }
}
