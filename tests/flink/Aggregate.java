import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.TableEnvironment;
import org.apache.flink.types.Row;
import org.apache.flink.util.CloseableIterator;

/** Reads a folder of events as Flink's `debezium-json` does, and prints the last count and sum of its changelog. */
public class Aggregate {
  public static void main(String[] arguments) throws Exception {
    TableEnvironment flink = TableEnvironment.create(EnvironmentSettings.inStreamingMode());
    flink.getConfig().set("parallelism.default", "1");
    flink.executeSql(
        "CREATE TABLE balances (script_hash STRING, script STRING, balance DECIMAL(20, 0)) "
            + "WITH ('connector' = 'filesystem', 'path' = '" + arguments[0] + "', 'format' = 'debezium-json')");
    Row last = null;
    long rows = 0;
    try (CloseableIterator<Row> results = flink.executeSql("SELECT COUNT(*), SUM(balance) FROM balances").collect()) {
      while (results.hasNext()) {
        last = results.next();
        rows++;
      }
    }
    System.out.println("aggregate " + last.getField(0) + " " + last.getField(1) + " after " + rows + " changes");
  }
}
