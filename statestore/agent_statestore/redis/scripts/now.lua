-- uses: clock
-- Tells the server's time.
--
-- KEYS[1]  any key of the partition whose server is asked
--
-- Returns the time in us.

return text(clock_us(''))
