// Asks with java.net.http: `java Ask.java URL FILE BASE64FILE WAY` prints the answer's body.
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;

class Ask {
    public static void main(String[] arguments) throws Exception {
        String url = arguments[0];
        Path file = Path.of(arguments[1]);
        String base64 = Files.readString(Path.of(arguments[2]));
        String json = "{\"image_base64\": \"" + base64 + "\", \"bbox\": [0, 0, 30, 48]}";
        HttpRequest.Builder request = HttpRequest.newBuilder();
        HttpClient client = HttpClient.newHttpClient(); // asks for an upgrade to h2c
        switch (arguments[3]) {
            case "json" -> request.uri(URI.create(url)).header("Content-Type", "application/json")
                .POST(BodyPublishers.ofString(json));
            case "json over HTTP/1.1" -> {
                client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
                request.uri(URI.create(url)).header("Content-Type", "application/json").POST(BodyPublishers.ofString(json));
            }
            case "file" -> request.uri(URI.create(url + "?bbox=0,0,30,48")).header("Content-Type", "image/png")
                .POST(BodyPublishers.ofFile(file));
            case "stream" -> request.uri(URI.create(url + "?bbox=0,0,30,48"))
                .header("Content-Type", "application/octet-stream")
                .POST(BodyPublishers.ofInputStream(() -> {
                    try {
                        return Files.newInputStream(file);
                    } catch (java.io.IOException error) {
                        throw new java.io.UncheckedIOException(error);
                    }
                }));
            case "form" -> request.uri(URI.create(url)).header("Content-Type", "multipart/form-data; boundary=a-b")
                .POST(BodyPublishers.concat(
                    part("Content-Disposition: form-data; name=\"bbox\"\r\n\r\n0,0,30,48\r\n"),
                    part("Content-Disposition: form-data; name=\"image\"; filename=\"a.png\"\r\nContent-Type: image/png\r\n\r\n"),
                    BodyPublishers.ofFile(file),
                    BodyPublishers.ofString("\r\n--a-b--\r\n")));
            default -> throw new IllegalArgumentException(arguments[3]);
        }
        System.out.println(client.send(request.build(), BodyHandlers.ofString(StandardCharsets.UTF_8)).body());
    }

    private static HttpRequest.BodyPublisher part(String text) {
        return BodyPublishers.ofString("--a-b\r\n" + text);
    }
}
